"""A model goes into a file as a whole and comes back, or nothing happens."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

import holdfast
from cases import over
from holdfast import maps
from holdfast.commands.reading import report_of
from holdfast.errors import CheckpointError
from holdfast.model import stored as stored_module
from holdfast.model.conversion import convert_file
from holdfast.model.restoring import stored_chains
from holdfast.model.workplace import Workplace
from holdfast.testing.case import Host
from holdfast.testing.given import AroundGiven
from support import state_of

KILLS = int(os.environ.get("HOLDFAST_KILLS", "12"))


def plain(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 4), nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.LSTM(6, 4)
    )


def parametrized(seed=0):
    model = plain(seed)
    holdfast.orthogonal(model[0])
    holdfast.weight_norm(model[1])
    holdfast.register_parametrization(model[2], "running_var", maps.Softplus())
    holdfast.spectral_norm(model[3], "weight_hh_l0")
    holdfast.register_parametrization(model[0], "bias", maps.Mask(torch.eye(4)[0] > 0))
    return model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def bits(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def equal(state, other):
    return state.keys() == other.keys() and all(
        torch.equal(state[key], other[key]) for key in state
    )


# ---- Plain state dicts


def test_a_plain_state_dict_has_the_keys_and_the_values_of_a_plain_model():
    model = parametrized()
    state = holdfast.plain_state_dict(model)
    twin = plain(1)
    assert state.keys() == twin.state_dict().keys()
    assert twin.load_state_dict(state) == ([], [])
    for module, other in zip(model, twin, strict=True):
        for name in ("weight", "bias", "weight_hh_l0", "running_var"):
            if isinstance(getattr(module, name, None), torch.Tensor):
                assert torch.equal(getattr(module, name), getattr(other, name))
    assert model.load_state_dict(state) == ([], [])
    torch.testing.assert_close(holdfast.plain_state_dict(model), state)


def test_a_shared_module_has_one_value_under_both_names():
    layer = holdfast.weight_norm(nn.Linear(3, 3))
    state = holdfast.plain_state_dict(nn.Sequential(layer, layer))
    assert state["0.weight"] is state["1.weight"]
    assert not state["0.weight"].requires_grad


def test_a_plain_state_dict_of_torchs_own_parametrizations():
    layer = parametrizations.weight_norm(nn.Linear(3, 2))
    state = holdfast.plain_state_dict(layer)
    assert state.keys() == {"weight", "bias"}
    assert torch.equal(state["weight"], layer.weight)


# ---- There and back


@pytest.mark.parametrize("shards", [None, 200, "1KB"])
@pytest.mark.parametrize("start", ["plain", "parametrized", "factory", "meta"])
def test_a_model_comes_back_bit_for_bit(start, shards, path):
    model = parametrized()
    files = holdfast.save(model, path, max_shard_size=shards)
    assert {*path.parent.iterdir()} == {*files}
    target = {
        "plain": lambda: plain(1),
        "parametrized": lambda: parametrized(1),
        "factory": lambda: lambda: plain(1),
        "meta": lambda: on_meta(plain),
    }[start]()
    again = holdfast.load(path, target)
    assert again is target or start == "factory"
    assert equal(again.state_dict(), bits(model))
    assert holdfast.spec(again) == holdfast.spec(model)
    x = torch.randn(2, 4, 9)
    model.eval(), again.eval()
    with torch.no_grad():
        assert torch.equal(again[0](x.mT), model[0](x.mT))
        assert torch.equal(again[1](x), model[1](x))


def on_meta(make):
    with torch.device("meta"):
        return make()


@pytest.mark.parametrize("kind", ["householder", "thin_cayley", "thin_matrix_exp"])
def test_buffers_beside_the_state_come_back(kind, path):
    layer = holdfast.orthogonal(
        nn.Linear(3, 4), orthogonal_map=kind, use_trivialization=False
    )
    holdfast.save(layer, path)
    for target in (nn.Linear(3, 4), on_meta(lambda: nn.Linear(3, 4))):
        assert torch.equal(holdfast.load(path, target).weight, layer.weight)


def test_ties_and_shared_modules_come_back(path):
    def tied():
        layer = nn.Linear(3, 3)
        model = nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(3, 3), nn.Linear(3, 3))
        model[4].weight = model[3].weight
        return model

    model = tied()
    holdfast.weight_norm(model[0])
    holdfast.save(model, path)
    for target in (tied(), on_meta(tied)):
        again = holdfast.load(path, target)
        assert again[0] is again[2]
        assert again[3].weight is again[4].weight
        assert equal(again.state_dict(), bits(model))


@pytest.mark.parametrize("shards", [None, 20])
def test_conjugates_and_their_parts_are_saved_as_they_read(shards, path):
    def made(seed):
        torch.manual_seed(seed)
        model, z = plain()[:1], torch.randn(2, 3, dtype=torch.complex64)
        tensors = {"z": z[0], "conjugate": z[0].conj(), "alone": z[1].conj()}
        tensors["part"] = z[1].conj().imag
        for i in range(3):  # whose copies must not take each other's memory
            tensors[f"turned_{i}"] = torch.randn(3, 2, dtype=z.dtype).mH
        for name, tensor in tensors.items():
            model.register_buffer(name, tensor)
        return model

    model = made(0)
    holdfast.save(model, path, max_shard_size=shards)
    clones = made(1)
    for name, buffer in [*clones.named_buffers()]:
        setattr(clones, name, buffer.clone().contiguous())
    again = holdfast.load(path, clones).state_dict()
    for key, tensor in model.state_dict().items():
        assert torch.equal(again[key], tensor), key


def test_parameters_keep_their_identity_and_gradients_of_nobody(path):
    model, target = parametrized(), plain(1)
    holdfast.save(model, path)
    weight = target[0].weight
    holdfast.load(path, target)
    assert target[0].parametrizations.weight.original is weight


class Doubled(holdfast.Parametrization):
    def forward(self, X):
        return 2 * X

    def right_inverse(self, W):
        return W / 2


def test_maps_of_the_user_are_named_with_also(path):
    layer = holdfast.register_parametrization(nn.Linear(2, 2), "weight", Doubled())
    holdfast.save(layer, path)
    target = nn.Linear(2, 2)
    before = bits(target)
    with pytest.raises(CheckpointError, match=r"`weight`.*no map `Doubled`"):
        holdfast.load(path, target)
    assert equal(target.state_dict(), before)
    again = holdfast.load(path, target, also=[Doubled])
    assert torch.equal(again.weight, layer.weight)


def test_what_cannot_be_saved_is_named(path):
    class Other(nn.Module):
        def forward(self, X):
            return X

    layer = holdfast.register_parametrization(nn.Linear(2, 2), "weight", Other())
    with pytest.raises(CheckpointError, match=r"`0.weight`.*`Other` has no spec"):
        holdfast.save(nn.Sequential(layer), path)

    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    with pytest.raises(
        CheckpointError, match=r"`0._extra_state` cannot be saved.*dict"
    ):
        holdfast.save(nn.Sequential(Extra(2, 2)), path)
    with pytest.raises(CheckpointError, match=r"`weight` is torch.complex128.*torch.s"):
        holdfast.save(nn.Linear(2, 2, dtype=torch.complex128), path)
    with pytest.raises(CheckpointError, match="max_shard_size"):
        holdfast.save(nn.Linear(2, 2), path, max_shard_size="many")
    with pytest.raises(CheckpointError, match=r"Cannot write .*/no/"):
        holdfast.save(nn.Linear(2, 2), path.parent / "no" / path.name)
    assert not [*path.parent.iterdir()]


@pytest.mark.parametrize("bad", [True, None, 3, nn.Linear(1, 1)], ids=repr)
def test_what_is_no_path_is_refused_by_the_name_of_the_function(bad, path):
    model = nn.Linear(2, 2)
    holdfast.save(model, path)
    calls = {
        "save": lambda: holdfast.save(model, bad),
        "load": lambda: holdfast.load(bad, model),
        "convert": lambda: convert_file(bad, path, "plain"),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"`{name}` takes the path of a file. Got"):
            call()
    with pytest.raises(TypeError, match="`convert` takes the path"):
        convert_file(path, bad, "plain")


@pytest.mark.parametrize("bad", ["", ".", b"model.safetensors", "/"])
def test_what_names_no_file_is_refused(bad, path):
    model = nn.Linear(2, 2)
    expected = TypeError if isinstance(bad, bytes) else CheckpointError
    for call in (
        lambda: holdfast.save(model, bad),
        lambda: holdfast.load(bad, model),
        lambda: convert_file(path, bad, "plain"),
    ):
        with pytest.raises(expected, match="path of a file. Got"):
            call()
    with pytest.raises(CheckpointError, match="is a folder. Name the file"):
        holdfast.load(path.parent, model)
    with pytest.raises(CheckpointError, match="plain, torch, holdfast, legacy. Got"):
        convert_file(path, path.with_name("other.safetensors"), "roman")


@pytest.mark.parametrize(
    "size", [True, [1], 0, -1, "5", "x GB", float("nan")], ids=repr
)
def test_what_is_no_size_of_a_shard_is_refused(size, path):
    with pytest.raises(CheckpointError, match="Expected max_shard_size as bytes"):
        holdfast.save(nn.Linear(2, 2), path, max_shard_size=size)
    assert not path.exists()


def test_a_missing_package_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(CheckpointError, match=r"pip install .holdfast\[save\]"):
        holdfast.save(nn.Linear(2, 2), path)


# ---- Files from anywhere


def rewritten(path, change):
    """Change the header of a checkpoint."""
    length = int.from_bytes(path.read_bytes()[:8], "little")
    metadata = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
    header = json.loads(metadata["holdfast"])
    header = change(header) or header
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(load_file(path), path, {"holdfast": text})


def with_map(**spec):
    def change(header):
        header["chains"][0]["maps"] = [spec]

    return change


def with_chain(**fields):
    return lambda header: header["chains"][0].update(fields)


HEADERS = {
    "no JSON": (lambda _: "{", "is no JSON"),
    "deep JSON": (lambda _: "[" * 100_000, "is no JSON"),
    "a list": (lambda _: "[]", "version 1"),
    "another version": (lambda h: h.update(version=2), "version 1"),
    "no chains": (lambda h: h.update(chains=3), 'lacks "chains"'),
    "no ties": (lambda h: h.update(tied=None), '"tied"'),
    "a chain twice": (lambda h: h["chains"].append(h["chains"][0]), "twice"),
    "a tie to nothing": (lambda h: h["tied"].update(a="b"), "`a` is tied to no"),
    "an unknown map": (with_map(map="System"), r"`0.weight`: .*no map `System`"),
    "a wrong spec": (with_map(map="WeightNorm", dim="x"), r"`0.weight`: .*spec.dim"),
    "a huge spec": (
        with_map(map="Mask", mask={"shape": [10**12], "dtype": "bool"}),
        r"`0.weight`: .*expected at most",
    ),
    "another map": (
        with_map(map="WeightNorm"),
        "(?s)does not fit.*0.parametrizations.weight.original0",
    ),
    "a map too few": (lambda h: h["chains"].__delitem__(0), "does not fit"),
    "no maps": (with_chain(maps=[]), "without maps"),
    "a wrong policy": (with_chain(outside="all"), "`0.weight` has a wrong policy"),
    "an unknown module": (with_chain(tensor="9.weight"), "has no `9.weight`"),
    "an unknown tensor": (with_chain(tensor="0.wieght"), "0.wieght.*Did you mean"),
    "a property": (with_chain(tensor="0.__class__"), "0.__class__"),
    "joins of nothing": (lambda h: h.update(joined=7), "joins no tensors"),
    "a call in the place of a name": (
        lambda h: h.update(joined={"0.both": [0, ["x'], print(1), ['"]]}),
        "`0.both` joins no tensors",
    ),
    "a join that is not there": (
        lambda h: h.update(joined={"0.both": [0, ["x", "y"]]}),
        r"holdfast.join\(model.get_submodule\('0'\), \['x', 'y'\], 'both', dim=0\)",
    ),
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_hostile_header_is_refused_and_the_model_stays(header, path):
    change, message = HEADERS[header]
    holdfast.save(parametrized(), path)
    rewritten(path, change)
    target = plain(1)
    before, classes = bits(target), [type(module) for module in target]
    with pytest.raises(CheckpointError, match=message) as caught:
        holdfast.load(path, target)
    assert str(path) in str(caught.value)
    assert equal(target.state_dict(), before)
    assert [type(module) for module in target] == classes


def rank_one():
    layer = nn.Linear(6, 4)
    layer.weight = nn.Parameter(torch.outer(torch.ones(4), torch.arange(6.0)))
    return layer


ABSURD = {
    "a rank": (lambda: nn.Linear(6, 4), maps.LoRA(2), {"rank": 10**9}),
    "a rank beside lengths": (lambda: nn.Linear(6, 4), maps.DoRA(2), {"rank": 10**9}),
    "a size between factors": (
        rank_one,
        maps.Product(maps.Chain(), maps.Chain(), sizes=1),
        {"sizes": 10**9},
    ),
    "an input": (
        lambda: nn.Conv2d(2, 3, 3),
        maps.ConvSpectralBound(size=8),
        {"size": 10**9},
    ),
    "a dilation": (
        lambda: nn.Conv2d(2, 3, 3),
        maps.ConvSpectralBound(size=8),
        {"dilation": 10**9},
    ),
    "a map inside": (
        lambda: nn.Linear(6, 4),
        maps.Transposed(maps.LoRA(2)),
        {"map_": {"map": "LoRA", "rank": 10**9}},
    ),
}


@pytest.mark.parametrize("kind", ABSURD)
def test_absurd_sizes_are_refused_before_anything_is_allocated(kind, path):
    make, map_, change = ABSURD[kind]
    layer = make()
    holdfast.register_parametrization(layer, "weight", map_)
    holdfast.save(layer, path)
    holdfast.load(path, make())
    rewritten(path, lambda h: h["chains"][0]["maps"][0].update(change))
    target = make()
    before = bits(target)
    with pytest.raises(CheckpointError, match=r"`weight`: Expected no tensor of more"):
        holdfast.load(path, target)
    assert equal(target.state_dict(), before)


def test_an_absurd_size_is_refused_where_a_file_is_read_without_its_model(path):
    layer, map_ = nn.Conv2d(2, 3, 3), maps.ConvSpectralBound(size=8)
    holdfast.save(holdfast.register_parametrization(layer, "weight", map_), path)
    with stored_chains(path) as [chain]:
        assert torch.equal(chain.restored()(), layer.weight)
    rewritten(path, lambda h: h["chains"][0]["maps"][0].update(size=10**9))
    with (
        stored_chains(path) as [chain],
        pytest.raises(CheckpointError, match=r"Expected no tensor of more"),
    ):
        chain.restored()


def test_a_model_with_the_same_maps_takes_any_size(path, monkeypatch):
    """The way out that the refusal names."""
    monkeypatch.setattr("holdfast.model.allowance._LEAST", 2**10)
    layer = nn.Linear(2, 2)
    holdfast.register_parametrization(layer, "weight", maps.LoRA(10_000))
    holdfast.save(layer, path)
    with pytest.raises(CheckpointError, match="parametrize the model by the same maps"):
        holdfast.load(path, nn.Linear(2, 2))
    holdfast.load(path, layer)


@pytest.mark.parametrize("map_", [maps.SpectralNorm(), maps.SigmaReparam()])
def test_a_file_does_not_ask_for_a_billion_iterations(map_, path):
    layer = holdfast.register_parametrization(nn.Linear(2, 2), "weight", map_)
    holdfast.save(layer, path)
    many = {"n_power_iterations": 10**9}
    rewritten(path, lambda h: h["chains"][0]["maps"][0].update(many))
    with pytest.raises(CheckpointError, match="n_power_iterations to be at most 10000"):
        holdfast.load(path, nn.Linear(2, 2))


def without(key):
    return lambda state: state.pop(key)


def with_tensor(**tensors):
    return lambda state: state.update(
        {key.replace("__", "."): value for key, value in tensors.items()}
    )


TENSORS = {
    "a missing tensor": (without("1.bias"), 'Missing key.*"1.bias"'),
    "a missing original": (
        without("1.parametrizations.weight.original0"),
        "Missing key.*1.parametrizations.weight.original0",
    ),
    "an extra tensor": (with_tensor(extra=torch.ones(2)), "Unexpected key.*extra"),
    "another shape": (
        with_tensor(**{"1__bias": torch.ones(7)}),
        "size mismatch for 1.bias",
    ),
    "another kind": (
        with_tensor(**{"1__bias": torch.ones(6, dtype=torch.complex64)}),
        "`1.bias` is torch.complex64",
    ),
}


@pytest.mark.parametrize("what", TENSORS)
def test_wrong_tensors_are_refused_and_the_model_stays(what, path):
    change, message = TENSORS[what]
    holdfast.save(parametrized(), path)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
    state = load_file(path)
    change(state)
    save_file(state, path, header)
    for target in (plain(1), parametrized(1)):
        before = bits(target)
        with pytest.raises(CheckpointError, match=message):
            holdfast.load(path, target)
        assert equal(target.state_dict(), before)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(keep, path):
    holdfast.save(parametrized(), path)
    path.write_bytes(path.read_bytes()[:keep])
    target = plain(1)
    before = bits(target)
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        holdfast.load(path, target)
    assert equal(target.state_dict(), before)


@pytest.mark.parametrize("size", [2**63 - 1, 2**40, 10**8 + 1, 2**20])
def test_an_absurd_header_size_is_refused(size, path):
    holdfast.save(parametrized(), path)
    path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        holdfast.load(path, plain())


def test_other_files_are_refused(path):
    with pytest.raises(CheckpointError, match=r"There is no file .*model"):
        holdfast.load(path, plain())
    torch.save(plain().state_dict(), path)
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        holdfast.load(path, plain())
    save_file(plain().state_dict(), path)
    with pytest.raises(CheckpointError, match="no specs"):
        holdfast.load(path, plain())


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "", ".", 3])
def test_an_index_names_only_files_beside_it(name, path):
    *_, index = holdfast.save(parametrized(), path, max_shard_size=200)
    table = json.loads(index.read_text())
    table["weight_map"]["1.bias"] = name
    index.write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match=r"`1.bias`|no safetensors"):
        holdfast.load(path, plain())


def test_an_index_that_lies_is_refused(path):
    *_, index = holdfast.save(parametrized(), path, max_shard_size=200)
    table = json.loads(index.read_text())
    table["weight_map"]["1.bias"] = table["weight_map"]["2.weight"]
    index.write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match=r"has no `1.bias`"):
        holdfast.load(path, plain())
    index.write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="is no index"):
        holdfast.load(path, plain())


def test_other_maps_in_the_model_are_refused(path):
    holdfast.save(parametrized(), path)
    target = plain(1)
    holdfast.weight_norm(target[0])
    before = bits(target)
    with pytest.raises(CheckpointError, match=r"`0.weight` is parametrized by"):
        holdfast.load(path, target)
    assert equal(target.state_dict(), before)
    holdfast.save(plain(), path)
    with pytest.raises(CheckpointError, match=r"`0.weight` is parametrized in the mod"):
        holdfast.load(path, target)


class Failing(nn.Linear):
    """Fails in loading, but not the first time, which is on a trial."""

    loads = 0

    def _load_from_state_dict(self, *args):
        super()._load_from_state_dict(*args)
        type(self).loads += 1
        if type(self).loads > 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_failure_after_the_trial_takes_everything_back(path, device, monkeypatch):
    monkeypatch.setattr(Failing, "loads", 0)
    source = nn.Sequential(holdfast.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    holdfast.orthogonal(source[1])
    holdfast.save(nn.Sequential(*source, nn.Linear(4, 2)), path)
    with torch.device(device):
        target = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), Failing(4, 2))
    if device == "cpu":
        target(torch.rand(1, 4)).sum().backward()
    before = state_of(target) if device == "cpu" else [*target.parameters()]
    with pytest.raises(KeyboardInterrupt):
        holdfast.load(path, target)
    assert Failing.loads == 2
    if device == "cpu":
        assert state_of(target) == before
    else:
        pairs = zip(target.parameters(), before, strict=True)
        assert all(now is then and now.is_meta for now, then in pairs)
    assert [type(layer) for layer in target] == [nn.Linear, nn.Linear, Failing]
    monkeypatch.setattr(Failing, "loads", -9)
    holdfast.load(path, target)
    assert torch.equal(target[0].weight, source[0].weight)


# ---- Weights without their model


@over("spec", dtypes=(torch.float32,))
def test_a_file_tells_the_weights_of_every_chain(case, shape, dtype):
    """With what its maps have noted of the shape of the weight."""
    host = case.registered(case.sample(shape, dtype))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "host.safetensors"
        holdfast.save(host, path)
        with stored_chains(path, also=(AroundGiven,)) as (chain,):
            assert_close(chain.restored().evaluate(), host.eval().weight)


SHAPED = {
    "toeplitz": (maps.Toeplitz, (3, 4)),
    "product": (lambda: maps.Product(maps.Orthogonal(), maps.Diagonal()), (4, 4)),
    "matricized": (lambda: maps.Matricized(maps.Orthogonal(), rows=1), (2, 3, 4)),
}


@pytest.mark.parametrize("kind", SHAPED)
def test_maps_that_note_a_shape_are_told_of_it_in_every_command(kind, path):
    make, shape = SHAPED[kind]
    host = Host(torch.randn(shape))
    holdfast.register_parametrization(host, "weight", make())
    holdfast.save(host, path)
    (line,) = report_of(path, spectra=False)
    assert (line.shape, line.problem) == (shape, "")
    plain_path = path.with_name("plain.safetensors")
    convert_file(path, plain_path, "plain")
    assert_close(load_file(plain_path)["weight"], host.weight.detach())
    again = path.with_name("again.safetensors")
    convert_file(path, again, "holdfast")
    other = holdfast.load(again, Host(torch.randn(shape)))
    assert torch.equal(other.weight, host.weight)
    assert report_of(again, spectra=False).tensors[0].shape == shape


def test_a_file_of_before_says_which_tensor_is_not_told_and_why(path):
    model = nn.Sequential(nn.Linear(4, 4), holdfast.weight_norm(nn.Linear(4, 4)))
    holdfast.register_parametrization(model[0], "weight", maps.Toeplitz())
    holdfast.save(model, path)
    rewritten(path, lambda h: [chain.pop("shape") for chain in h["chains"]] and None)
    first, second = report_of(path, spectra=False)
    assert "does not say of which shape" in first.problem
    assert (first.tensor, first.maps) == ("0.weight", "Toeplitz()")
    assert (second.tensor, second.problem, second.shape) == ("1.weight", "", (4, 4))
    other = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    assert equal(holdfast.load(path, other).state_dict(), bits(model))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([2**20, 2**20], "more than .* bytes"),
        ([4, 5], "the file says"),
        ([-1, 4], "wrong shape"),
        ([True, 4], "wrong shape"),
        ("44", "wrong shape"),
        ([2**60], "wrong shape"),
    ],
)
def test_a_wrong_shape_in_a_header_is_refused(shape, message, path):
    model = holdfast.orthogonal(nn.Linear(4, 4))
    holdfast.save(model, path)
    rewritten(path, lambda h: h["chains"][0].update(shape=shape))
    with pytest.raises(CheckpointError, match=message):
        report_of(path, spectra=False)


# ---- Crashes


def test_going_over_to_shards_and_back_leaves_only_what_counts(path):
    model = parametrized()
    for shards in (None, 200, 200, None, "1KB"):
        files = holdfast.save(model, path, max_shard_size=shards)
        assert {*path.parent.iterdir()} == {*files}
        assert equal(holdfast.load(path, plain(1)).state_dict(), bits(model))


def test_a_save_deletes_only_files_of_its_own(path):
    bystander = path.with_name("thesis.txt")
    bystander.write_text("years of work")
    *_, index = holdfast.save(parametrized(), path, max_shard_size=200)
    table = json.loads(index.read_text())
    table["weight_map"]["1.bias"] = bystander.name
    index.write_text(json.dumps(table))
    holdfast.save(parametrized(), path)
    assert bystander.read_text() == "years of work"


def test_two_saves_at_a_time_leave_one_of_them_whole(path, monkeypatch):
    """The second begins in the middle of the first, and names its shards after it."""
    models = [nn.Linear(4, 4), nn.Linear(4, 4)]
    second = threading.Thread(
        target=lambda: holdfast.save(models[1], path, max_shard_size=64)
    )
    waits, ended = threading.Event(), threading.Event()
    alone = Workplace.alone

    def alone_in_turn(place):
        if threading.current_thread() is second:
            waits.set()
            assert ended.wait(60)
        else:
            second.start()
            assert waits.wait(60)
        return alone(place)

    monkeypatch.setattr(Workplace, "alone", alone_in_turn)
    holdfast.save(models[0], path, max_shard_size=64)
    ended.set()
    second.join()
    index = path.with_name(f"{path.name}.index.json")
    loaded = holdfast.load(index, nn.Linear(4, 4))
    assert torch.equal(loaded.weight, models[1].weight)
    named = {*json.loads(index.read_text())["weight_map"].values(), index.name}
    assert {file.name for file in path.parent.iterdir()} == named


SAVER = """
import sys, torch, holdfast
path, size = sys.argv[1:]
model = torch.nn.Linear(4, 4)
for step in range(60):
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, float(step))
    holdfast.save(model, path, max_shard_size=None if size == "all" else int(size))
    if not step:
        print("ready", flush=True)
"""


def saving(path, size, stack):
    command = [sys.executable, "-c", SAVER, str(path), size]
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_one_file_and_several_saved_at_a_time_leave_a_whole_checkpoint(path):
    """And a load meanwhile has one of them: it reads an index again that is renewed."""
    pytest.importorskip("fcntl")
    with contextlib.ExitStack() as stack:
        savers = [saving(path, size, stack) for size in ("all", "64")]
        loads = 0
        while any(saver.poll() is None for saver in savers):
            layer = holdfast.load(path, nn.Linear(4, 4))
            assert len({*layer.weight.flatten().tolist(), *layer.bias.tolist()}) == 1
            loads += 1
        assert [saver.wait(60) for saver in savers] == [0, 0]
    assert loads > 1
    assert (holdfast.load(path, nn.Linear(4, 4)).weight == 59).all()


def test_the_moment_that_counts_is_of_one_save_alone(path, monkeypatch):
    """Negative control: else an index goes with one save, a file with another."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    unlink = Path.unlink

    def between(file, **arguments):
        if file.suffix == ".json":
            monkeypatch.setattr(Path, "unlink", unlink)
            holdfast.save(second, path, max_shard_size=64)
        unlink(file, **arguments)

    monkeypatch.setattr(Path, "unlink", between)
    monkeypatch.setattr(Workplace, "alone", lambda _: contextlib.nullcontext())
    holdfast.save(first, path)
    with pytest.raises(CheckpointError, match="There is no file"):
        holdfast.load(path, nn.Linear(4, 4))


def saved_over(path, monkeypatch, times):
    """Let another save come between reading an index and opening what it names."""
    read, left = stored_module.read_index, [times]

    def read_and_be_late(index):
        found = read(index)
        if left[0]:
            left[0] -= 1
            holdfast.save(nn.Linear(4, 4), path, max_shard_size=64)
        return found

    monkeypatch.setattr(stored_module, "read_index", read_and_be_late)


def test_an_index_that_is_saved_over_is_read_again(path, monkeypatch):
    model = nn.Linear(4, 4)
    holdfast.save(model, path, max_shard_size=64)
    saved_over(path, monkeypatch, 1)
    loaded = holdfast.load(path, nn.Linear(4, 4))
    assert not torch.equal(loaded.weight, model.weight)
    saved_over(path, monkeypatch, 1000)
    with pytest.raises(CheckpointError, match="saved over 10 times.*no save runs"):
        holdfast.load(path, nn.Linear(4, 4))


def test_a_lost_shard_is_named_with_its_index(path):
    shard, *_ = holdfast.save(nn.Linear(4, 4), path, max_shard_size=64)
    shard.unlink()
    with pytest.raises(CheckpointError, match=rf"{shard.name}, which .*names"):
        holdfast.load(path, nn.Linear(4, 4))


@pytest.mark.parametrize("shards", [None, 64])
def test_a_link_is_followed_as_by_torch(path, shards):
    place = path.parent / "elsewhere"
    place.mkdir()
    target = place / "step-100.safetensors"
    for exists in (False, True):
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        model = holdfast.weight_norm(nn.Linear(4, 4))
        files = holdfast.save(model, path, max_shard_size=shards)
        assert target.exists() is (shards is None), exists
        assert {*place.iterdir()} == {*files}
        assert {*path.parent.iterdir()} == {place, path}
        assert path.is_symlink()
        for name in (path, target):
            assert equal(holdfast.load(name, nn.Linear(4, 4)).state_dict(), bits(model))


def test_an_index_that_is_a_link_names_files_beside_the_link(path):
    """As in the caches of hubs, where every file is a link to one named by its hash."""
    model = nn.Linear(4, 4)
    *shards, index = holdfast.save(model, path, max_shard_size=64)
    blobs, snapshot = path.parent / "blobs", path.parent / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for i, file in enumerate([*shards, index]):
        file.replace(blobs / str(i))
        (snapshot / file.name).symlink_to(blobs / str(i))
    for name in (path.name, index.name):
        loaded = holdfast.load(snapshot / name, nn.Linear(4, 4))
        assert torch.equal(loaded.weight, model.weight)


def test_a_link_to_itself_is_refused(path):
    path.symlink_to(path)
    for call in (holdfast.save, lambda m, p: holdfast.load(p, m)):
        with pytest.raises(CheckpointError, match="link"):
            call(nn.Linear(4, 4), path)


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    model = parametrized()
    holdfast.save(model, path)
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(CheckpointError, match="No space left"):
        holdfast.save(parametrized(5), path)
    assert [*path.parent.iterdir()] == [path]
    monkeypatch.undo()
    assert equal(holdfast.load(path, plain()).state_dict(), bits(model))


def fails(_):
    raise OSError(28, "No space left on device")


WRITER = """
import sys, torch, holdfast
from torch import nn
path, shards = sys.argv[1], int(sys.argv[2]) or None
def model(value):
    layers = [nn.Linear(256, 256) for _ in range(4)]
    for layer in layers:
        nn.init.constant_(layer.weight, value)
        nn.init.constant_(layer.bias, value)
        holdfast.register_parametrization(layer, "weight", holdfast.maps.Symmetric())
    return nn.Sequential(*layers)
models = [model(float(value)) for value in range(3)]
holdfast.save(models[0], path, max_shard_size=shards)
print("ready", flush=True)
for i in range(10**9):
    limit = shards if i % 4 < 3 else None
    holdfast.save(models[i % 3], path, max_shard_size=limit)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9")
@pytest.mark.parametrize("shards", [0, 300_000], ids=["one file", "shards"])
def test_a_kill_leaves_the_old_file_or_the_new_one(shards, path):
    moments, seen = random.Random(shards), set()
    for _ in range(max(1, KILLS // 2)):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(shards)],
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(moments.random() * 0.1)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        target = nn.Sequential(*(nn.Linear(256, 256) for _ in range(4)))
        state = holdfast.plain_state_dict(holdfast.load(path, target))
        values = {float(v) for tensor in state.values() for v in tensor.unique()}
        assert len(values) == 1, "a mixture of two models"
        seen |= values
    assert KILLS < 50 or len(seen) == 3
    files = holdfast.save(target, path, max_shard_size=shards or None)
    assert {*path.parent.iterdir()} == {*files}, "a crash has left something for good"


def left_by_a_crash(path):
    """Leave what a killed process would: a folder that nobody locks, and shards."""
    folder = path.with_name(f".{path.name}.0123abcd.part")
    folder.mkdir()
    (folder / ".tmpXyZ").write_bytes(b"half a file")
    shard = path.with_name("model-0123abcd-00001-of-00003.safetensors")
    shard.write_bytes(b"without an index")
    return folder, shard


@pytest.mark.parametrize("shards", [None, 200])
def test_what_a_crash_left_is_removed_by_the_next_save_to_the_same_path(path, shards):
    strangers = [
        path.with_name(name)
        for name in (
            ".other.safetensors.0123abcd.part",
            ".model.safetensors.part",
            "model-00001-of-00003.safetensors",  # another library's
            "other-0123abcd-00001-of-00003.safetensors",
        )
    ]
    for stranger in strangers:
        stranger.write_bytes(b"not ours")
    left_by_a_crash(path)
    model = parametrized()
    files = holdfast.save(model, path, max_shard_size=shards)
    assert {*path.parent.iterdir()} == {*files, *strangers}
    assert equal(holdfast.load(path, plain(1)).state_dict(), bits(model))


HOLDER = """
import sys
from pathlib import Path
from holdfast.model.workplace import workplace
with workplace(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_another_process_is_writing_stays(path):
    pytest.importorskip("fcntl")
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (held,) = path.parent.iterdir()
        folder, shard = left_by_a_crash(path)
        holdfast.save(parametrized(), path)
        assert not folder.exists()
        # it may be one of those that the other process has yet to write the index of
        assert {*path.parent.iterdir()} == {held, shard, path}
        process.communicate(b"")
    assert not held.exists()
    holdfast.save(parametrized(), path)
    assert {*path.parent.iterdir()} == {path}


def test_a_write_in_place_is_seen_by_the_test_above(path):
    """The negative control: half of a file is not taken for one."""
    holdfast.save(parametrized(), path)
    data = path.read_bytes()
    with Path(path).open("wb") as file:
        file.write(data[: len(data) // 2])
    with pytest.raises(CheckpointError):
        holdfast.load(path, plain())


# ---- torch.distributed.checkpoint


@pytest.mark.filterwarnings("ignore")
def test_torchs_distributed_checkpoints_work(tmp_path):
    checkpoint = pytest.importorskip("torch.distributed.checkpoint")
    if not torch.distributed.is_available():
        pytest.skip("torch was built without it")
    model, other = parametrized(), parametrized(1)
    checkpoint.save(model.state_dict(), checkpoint_id=tmp_path, no_dist=True)
    state = copy.deepcopy(other.state_dict())
    checkpoint.load(state, checkpoint_id=tmp_path, no_dist=True)
    assert other.load_state_dict(state) == ([], [])
    assert equal(other.state_dict(), bits(model))

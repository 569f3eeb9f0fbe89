"""`holdfast convert` translates checkpoints between spellings."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrizations

import holdfast
from holdfast import cli


def build(weight_norm, spectral_norm, orthogonal=None):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = [weight_norm(nn.Linear(4, 5)), spectral_norm(nn.Linear(5, 4))]
        layers += [orthogonal(nn.Linear(4, 4))] if orthogonal else []
    return nn.Sequential(*layers, nn.Linear(4, 2)).eval()


def torchs():
    return build(parametrizations.weight_norm, parametrizations.spectral_norm)


def legacy():
    return build(nn.utils.weight_norm, nn.utils.spectral_norm)


def ours():
    return build(holdfast.weight_norm, holdfast.spectral_norm)


def plain():
    return build(lambda layer: layer, lambda layer: layer)


def run(*arguments):
    return cli.main(["convert", *map(str, arguments)])


def equal(state, other):
    return state.keys() == other.keys() and all(
        torch.equal(state[key], other[key]) for key in state
    )


MODELS = {"torch": torchs, "legacy": legacy, "holdfast": ours}


def written(model, spelling, path):
    if spelling == "holdfast":
        holdfast.save(model, path)
    elif path.suffix == ".pt":
        torch.save(model.state_dict(), path)
    else:
        save_file(model.state_dict(), path)


@pytest.mark.parametrize("source", MODELS)
@pytest.mark.parametrize("target", ["plain", *MODELS])
def test_any_spelling_becomes_any_other(source, target, tmp_path, capsys):
    model, given = MODELS[source](), tmp_path / "in.safetensors"
    written(model, source, given)
    result = tmp_path / "out.safetensors"
    assert run(given, result, "--to", target) == 0
    out = capsys.readouterr().out
    assert {"0.weight", "1.weight", "2.weight"} <= {*out.split()}
    twin = {**MODELS, "plain": plain}[target]()
    assert twin.load_state_dict(load_file(result)) == ([], [])
    x = torch.randn(3, 4)
    torch.testing.assert_close(twin(x), model(x))
    if target == "holdfast":
        torch.testing.assert_close(holdfast.load(result, plain())(x), model(x))


@pytest.mark.parametrize("source", MODELS)
@pytest.mark.parametrize("between", MODELS)
def test_there_and_back_is_bit_exact(source, between, tmp_path):
    model, given = MODELS[source](), tmp_path / "in.safetensors"
    written(model, source, given)
    middle, back = tmp_path / "middle.safetensors", tmp_path / "back.safetensors"
    assert run(given, middle, "--to", between) == 0
    assert run(middle, back, "--to", source) == 0
    assert equal(load_file(back), load_file(given))


def test_maps_of_a_header_give_plain_weights(tmp_path):
    kinds = ["matrix_exp", "householder", "thin_cayley"]
    layers = [
        holdfast.orthogonal(
            nn.Linear(3, 5), orthogonal_map=kind, use_trivialization=False
        )
        for kind in kinds
    ]
    model = nn.Sequential(*layers)
    holdfast.save(model, tmp_path / "in.safetensors", max_shard_size=100)
    assert run(tmp_path / "in.safetensors", tmp_path / "out.pt", "--to", "plain") == 0
    state = torch.load(tmp_path / "out.pt", weights_only=True)
    assert state.keys() == holdfast.plain_state_dict(model).keys()
    torch.testing.assert_close(state, holdfast.plain_state_dict(model))


def test_json_says_the_same(tmp_path, capsys):
    written(legacy(), "legacy", tmp_path / "in.pt")
    out = tmp_path / "out.safetensors"
    assert run(tmp_path / "in.pt", out, "--to", "torch", "--json") == 0
    lines = {line["tensor"]: line for line in json.loads(capsys.readouterr().out)}
    assert lines["0.weight"] == {
        "tensor": "0.weight",
        "maps": "WeightNorm()",
        "source": "legacy",
        "target": "torch",
        "keys": [f"0.parametrizations.weight.original{i}" for i in (0, 1)],
    }
    assert {key for line in lines.values() for key in line["keys"]} == {*load_file(out)}


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_what_cannot_be_converted_is_named_and_nothing_is_written(tmp_path, capsys):
    given, out = tmp_path / "in.pt", tmp_path / "out.safetensors"
    orthogonal = nn.Sequential(parametrizations.orthogonal(nn.Linear(3, 3)))
    torch.save(orthogonal.state_dict(), given)
    cases = [([given, out, "--to", "plain"], 1, "`0.weight`: the keys do not tell")]
    ours = nn.Sequential(holdfast.orthogonal(nn.Linear(3, 3)))
    holdfast.save(ours, tmp_path / "ours.safetensors")
    cases += [
        (
            [tmp_path / "ours.safetensors", out, "--to", "legacy"],
            1,
            "`0.weight`: torch's older functions have no Orthogonal(",
        ),
        ([tmp_path / "no.pt", out, "--to", "plain"], 1, "No such file"),
        (
            [given, tmp_path / "out.zip", "--to", "plain"],
            1,
            "expected a name that",
        ),
        ([given, out, "--to", "keras"], 2, "'keras' is not one of"),
        ([given, out], 2, "Missing option '--to'"),
    ]
    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    cases += [
        (
            [tmp_path / "evil.pt", out, "--to", "plain"],
            1,
            "as tensors alone. Expected a state dict",
        )
    ]
    torch.save({"weight": 3}, tmp_path / "three.pt")
    cases += [
        ([tmp_path / "three.pt", out, "--to", "plain"], 1, "`weight` is no tensor")
    ]
    for arguments, status, message in cases:
        assert run(*arguments) == status
        shown = capsys.readouterr()
        assert message in " ".join(shown.err.split())
        assert "executed" not in shown.out
        assert "weights_only" not in shown.err  # torch's advice to load it unsafely
    assert not out.exists()


def test_the_file_that_is_read_is_not_written(tmp_path, capsys):
    model, path = MODELS["holdfast"](), tmp_path / "in.safetensors"
    written(model, "holdfast", path)
    before = path.read_bytes()
    assert run(path, path, "--to", "plain") == 1
    assert "is the file that is read" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("1.weight_u", torch.tensor(1.0), "no singular vectors"),
        ("0.bias", torch.eye(3).to_sparse(), "expected a dense tensor"),
    ],
)
def test_a_state_dict_with_odd_tensors_is_refused(
    name, tensor, message, tmp_path, capsys
):
    out = tmp_path / "out.safetensors"
    torch.save({**legacy().state_dict(), name: tensor}, tmp_path / "odd.pt")
    assert run(tmp_path / "odd.pt", out, "--to", "plain") == 1
    assert message in capsys.readouterr().err
    assert not out.exists()

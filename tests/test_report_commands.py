"""The commands report, check and bench: what is typed, and what comes back."""

from __future__ import annotations

import json
import math
import os
import pty
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import holdfast
from holdfast import cli, maps, sets
from holdfast.commands.comparison import SUBJECTS
from holdfast.commands.reading import report_of


def model_of_many_kinds():
    model = nn.Sequential(
        holdfast.orthogonal(nn.Linear(6, 6)),
        holdfast.orthogonal(nn.Linear(9, 4)),
        holdfast.orthogonal(nn.Linear(5, 5), orthogonal_map="householder"),
        holdfast.orthogonal(nn.Linear(5, 3), orthogonal_map="cayley"),
        holdfast.weight_norm(nn.Conv2d(2, 3, 2)),
        holdfast.spectral_norm(nn.Linear(4, 3)),
        nn.LSTM(3, 4),
        holdfast.low_rank(nn.Linear(6, 5), rank=2),
        nn.Linear(4, 4),
    )
    holdfast.per_gate(model[6], "weight_hh_l0", maps.Orthogonal())
    for link in (maps.Skew(), maps.Cayley()):
        holdfast.register_parametrization(model[8], "weight", link)
    with torch.no_grad():
        for chain in (model[0].parametrizations, model[8].parametrizations):
            chain.weight.original.add_(torch.randn_like(chain.weight.original))
    return model


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.safetensors"
    holdfast.save(model_of_many_kinds(), path)
    return path


@pytest.fixture
def bad(tmp_path):
    """A file with a base that is not orthogonal, and a coordinate that is NaN."""
    model, path = model_of_many_kinds(), tmp_path / "bad.safetensors"
    with torch.no_grad():
        model[0].parametrizations.weight[0].base[0, 0] += 0.01
        model[1].parametrizations.weight.original[0, 0] = math.nan
    holdfast.save(model, path)
    return path


def run(*arguments):
    return cli.main(list(map(str, arguments)))


# A file says what the model says


def test_a_checkpoint_is_reported_as_the_model_that_it_is_of(good):
    model = model_of_many_kinds()
    holdfast.load(good, model)
    expected = {each.tensor: each for each in holdfast.report(model)}
    found = {each.tensor: each for each in report_of(good, spectra=True)}
    assert found.keys() == expected.keys()
    for path, each in found.items():
        other = expected[path]
        for name in ("maps", "shape", "dtype", "free", "set", "tolerance"):
            assert getattr(each, name) == getattr(other, name), (path, name)
        assert each.residual == pytest.approx(other.residual, abs=1e-6)
        if len(each.shape) == 2:
            assert each.largest == pytest.approx(other.largest, rel=1e-5)
        else:
            assert each.largest is None


def test_report_prints_a_table_or_json(good, bad, capsys):
    assert run("report", good) == 0
    out, err = capsys.readouterr()
    assert "0.weight" in out
    assert "Stiefel()" in out
    assert not err
    assert run("report", bad, "--json", "--no-spectra") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["checkpoint"] == str(bad)
    assert data["holds"] is False
    by_path = {each["tensor"]: each for each in data["tensors"]}
    assert by_path["1.weight"]["residual"] == "nan"
    assert by_path["0.weight"]["largest"] is None


def test_shards_are_read_as_one(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    holdfast.save(model_of_many_kinds(), path, max_shard_size=200)
    for given in (path, tmp_path / "model.safetensors.index.json"):
        assert run("check", given) == 0
    assert "8 inside" in capsys.readouterr().out


def test_reading_draws_no_random_numbers(good):
    before = torch.get_rng_state()
    report_of(good, spectra=True)
    assert torch.equal(torch.get_rng_state(), before)


# What holds and what does not


def test_check_passes_what_holds(good, capsys):
    assert run("check", good) == 0
    out, err = capsys.readouterr()
    expected = "8 inside the declared set; 1 only tending to it, not judged.\n"
    assert out == f"{good}: {expected}"
    assert not err


def test_check_names_what_does_not_hold(bad, capsys):
    assert run("check", bad) == 1
    out, err = capsys.readouterr()
    first, second, last = err.splitlines()
    assert first.startswith("`0.weight` is not in Stiefel(): residual 0.00")
    assert second == "`1.weight` is not finite."
    assert last == f"{bad}: 2 of 9 outside."
    assert not out
    assert run("check", bad, "--json") == 1
    data = json.loads(capsys.readouterr().out)
    wrong = [each["tensor"] for each in data["tensors"] if not each["holds"]]
    assert wrong == ["0.weight", "1.weight"]


def test_check_takes_another_tolerance(good, bad, capsys):
    assert run("check", good, "--tolerance", "1e-12") == 1
    assert "`5.weight` is not in SpectralSphere" in capsys.readouterr().err
    assert run("check", bad, "--tolerance", "0.5") == 1
    assert capsys.readouterr().err.startswith("`1.weight` is not finite.")
    assert run("check", good, "--tolerance", "0.5") == 0


@pytest.mark.parametrize("tolerance", ["nan", "inf", "-1", "much"])
def test_a_tolerance_that_judges_nothing_is_refused(good, tolerance, capsys):
    assert run("check", good, "--tolerance", tolerance) == 2
    assert "--tolerance" in capsys.readouterr().err


def test_a_model_with_nothing_parametrized_passes(tmp_path, capsys):
    path = tmp_path / "plain.safetensors"
    holdfast.save(nn.Linear(2, 2), path)
    assert run("check", path) == 0
    assert "nothing is parametrized" in capsys.readouterr().out
    assert run("report", path) == 0
    assert "Nothing is parametrized." in capsys.readouterr().out


# Files that are none


def edited(good, path, change):
    """Write the file again with another header or other tensors."""
    with safe_open(good, framework="pt") as file:
        header = json.loads(file.metadata()["holdfast"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, path, {"holdfast": json.dumps(header)})


def without_original(header, tensors):
    del tensors["0.parametrizations.weight.original"]


def of_another_shape(header, tensors):
    tensors["0.parametrizations.weight.original"] = torch.randn(2, 3)


def with_an_unknown_map(header, tensors):
    header["chains"][0]["maps"][0]["map"] = "Nonsense"


def with_one_tensor_too_many(header, tensors):
    tensors["0.parametrizations.weight.0.surplus"] = torch.ones(1)


@pytest.mark.parametrize("command", ["report", "check"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_original, "`0.weight` has no original"),
        (of_another_shape, "`0.weight`"),
        (with_an_unknown_map, "Nonsense"),
        (with_one_tensor_too_many, "surplus"),
    ],
)
def test_a_file_that_fits_no_chain_is_an_error(
    command, change, said, good, tmp_path, capsys
):
    path = tmp_path / "edited.safetensors"
    edited(good, path, change)
    assert run(command, path) == 1
    out, err = capsys.readouterr()
    assert err.startswith("Error: ")
    assert said in err
    assert not out


@pytest.mark.parametrize("change", [of_another_shape, with_one_tensor_too_many])
def test_a_file_that_fits_no_chain_is_not_converted(change, good, tmp_path, capsys):
    path, target = tmp_path / "edited.safetensors", tmp_path / "plain.safetensors"
    edited(good, path, change)
    assert run("convert", path, target, "--to", "plain") == 1
    assert capsys.readouterr().err.startswith("Error: `0.weight`")
    assert not target.exists()


def without_shape(header, tensors):
    header["chains"][0]["shape"] = None


def of_absurd_shape(header, tensors):
    header["chains"][0]["shape"] = [2**20, 2**20]


@pytest.mark.parametrize("change", [without_shape, of_absurd_shape])
def test_a_file_without_shapes_that_count_is_not_converted(
    change, good, tmp_path, capsys
):
    edited(good, path := tmp_path / "edited.safetensors", change)
    target = tmp_path / "plain.safetensors"
    assert run("convert", path, target, "--to", "plain") == 1
    err = capsys.readouterr().err
    assert err.startswith("Error: `0.weight`")
    assert "shape" in err
    assert not target.exists()


def test_values_that_a_map_cannot_take_are_named_beside_the_others(tmp_path, capsys):
    model = nn.Sequential(holdfast.spd(nn.Linear(3, 3)), nn.Linear(4, 4))
    holdfast.register_parametrization(model[1], "weight", maps.RKO())
    model[1].parametrizations.weight.original.data.fill_(math.nan)
    holdfast.save(model, path := tmp_path / "diverged.safetensors")
    assert run("check", path) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("`1.weight` cannot be evaluated: its originals are not")
    assert second.endswith("1 of 2 outside.")
    assert run("report", path) == 0
    assert "0.weight" in capsys.readouterr().out
    target = tmp_path / "plain.safetensors"
    assert run("convert", path, target, "--to", "plain") == 1
    assert "`1.weight` cannot be evaluated: its originals" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "check"])
@pytest.mark.parametrize(
    "content", [None, b"", b"text", b"\xff" * 100, "half", "plain"]
)
def test_a_missing_or_broken_file_is_an_error(command, content, good, tmp_path, capsys):
    path = tmp_path / "broken.safetensors"
    if content == "half":
        path.write_bytes(good.read_bytes()[:2000])
    elif content == "plain":
        save_file({"weight": torch.ones(2)}, path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    assert run(command, path) == 1
    out, err = capsys.readouterr()
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert "broken.safetensors" in err
    assert not out


@pytest.mark.parametrize("command", ["report", "check"])
def test_a_folder_is_no_checkpoint(command, tmp_path, capsys):
    assert run(command, tmp_path) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert "is a folder" in error


def test_a_map_of_ones_own_is_named(tmp_path, capsys):
    class Own(holdfast.Parametrization):
        codomain = sets.Real()

        def forward(self, X):
            return X

        def right_inverse(self, W):
            return W

    layer, path = nn.Linear(2, 2), tmp_path / "own.safetensors"
    holdfast.register_parametrization(layer, "weight", Own())
    holdfast.save(layer, path)
    assert run("check", path) == 1
    assert "Own" in capsys.readouterr().err


# Terminals

CONVERT = ("convert", "{}", "{}.plain.safetensors", "--to", "plain")


@pytest.mark.parametrize(
    ("arguments", "drawn_text"),
    [(("check", "{}"), "reading good"), (CONVERT, "converting good")],
)
def test_a_bar_is_drawn_on_a_terminal_and_on_nothing_else(arguments, drawn_text, good):
    filled = [each.format(good) for each in arguments]
    command = [sys.executable, "-m", "holdfast.cli", *filled]
    quiet = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not quiet.stderr
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    loud = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
    )
    os.close(theirs)
    drawn = os.read(ours, 100_000).decode()
    os.close(ours)
    assert drawn_text in drawn
    assert loud.stdout.decode() == quiet.stdout


# This machine


def test_bench_times_every_map(capsys):
    assert run("bench", "--quick", "--size", 4, "--json") == 0
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert [each["subject"] for each in data["times"]] == list(SUBJECTS)
    for each in data["times"]:
        assert each["size"] == 4
        for who in ("torch", "holdfast"):
            low, high = each[f"{who}_low"], each[f"{who}_high"]
            assert 0 < low <= each[who] <= high
        assert each["times_low"] <= each["times_faster"] <= each["times_high"]
    assert data["threads"] == 1
    assert not err


def test_bench_prints_a_table_and_restores_the_threads(capsys):
    before = torch.get_num_threads()
    noise = torch.get_rng_state()
    arguments = ("--quick", "--only", "identity", "--size", 4, "--size", 5)
    assert run("bench", *arguments) == 0
    out = capsys.readouterr().out
    assert "reading through the identity" in out
    assert "5 x 5" in out
    assert "1 thread." in out
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), noise)


@pytest.mark.parametrize(
    "arguments", [("--only", "nothing"), ("--size", 0), ("--threads", 0), ("surplus",)]
)
def test_wrong_arguments_of_bench_are_named(arguments, capsys):
    assert run("bench", *arguments) == 2
    assert str(arguments[-1]) in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "check", "bench"])
def test_the_help_states_the_exit_status(command, capsys):
    assert run(command, "--help") == 0
    assert "Exit status: 0" in " ".join(capsys.readouterr().out.split())


def test_a_checkpoint_has_to_be_named(capsys):
    assert run("check") == 2
    assert "CHECKPOINT" in capsys.readouterr().err


def test_layers_of_a_file_are_in_the_order_of_their_numbers(tmp_path):
    path = tmp_path / "many.safetensors"
    layers = (holdfast.weight_norm(nn.Linear(2, 2)) for _ in range(12))
    holdfast.save(nn.ModuleDict({"block": nn.Sequential(*layers)}), path)
    found = [each.tensor for each in report_of(path, spectra=False)]
    assert found == [f"block.{i}.weight" for i in range(12)]


def test_kernels_in_a_file_have_the_singular_values_that_their_set_is_about(tmp_path):
    path = tmp_path / "kernels.safetensors"
    model = nn.Sequential(
        holdfast.orthogonal(nn.Conv2d(4, 4, 3)),
        holdfast.weight_norm(nn.Conv2d(4, 4, 3)),
    )
    holdfast.save(model, path)
    orthogonal, norm = report_of(path, spectra=True)
    assert orthogonal.smallest == pytest.approx(1, abs=1e-5)
    assert norm.smallest is None

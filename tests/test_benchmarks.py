"""The benchmarks run; what they measure is for `python -m benchmarks` to say."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    path.stem
    for path in ROOT.glob("benchmarks/*.py")
    if "def measure(" in path.read_text()
)


@pytest.fixture(autouse=True)
def _root_on_path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_prints_its_table_with_the_target(name, capsys):
    script = importlib.import_module(f"benchmarks.{name}")
    reporting = importlib.import_module("benchmarks.reporting")
    reporting.main(script.measure, ["--quick"])
    out = capsys.readouterr().out
    assert "| holdfast" in out
    assert "<= " in out


def test_numbers_survive_json():
    reporting = importlib.import_module("benchmarks.reporting")
    report = reporting.Report("claim", ["what", "target"])
    report.rows.append(["a", report.judge("a", 2.0, 1.0)])
    again = reporting.Report.of_json(report.as_json())
    assert str(again) == str(report)
    assert "FAIL" in str(again)
    assert [v.passed for v in again.verdicts] == [False]


def test_every_benchmark_is_in_the_list_of_all():
    everything = importlib.import_module("benchmarks.__main__")
    assert sorted(everything.CLAIMS) == SCRIPTS


# ---- The table of orthogonal weights -------------------------------------------------


@pytest.fixture
def orthogonal():
    return importlib.import_module("benchmarks.orthogonal")


def test_the_table_has_every_library_and_is_written(
    orthogonal, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(orthogonal, "RESULTS", tmp_path / "orthogonal.md")
    orthogonal.main(["--quick", "--write"])
    page = orthogonal.RESULTS.read_text()
    assert page in capsys.readouterr().out
    rows = [row for row in page.splitlines() if row.startswith("| 8 x 2  ")]
    assert len(rows) == 6
    for name in ("torch cayley", "holdfast thin_cayley", "geotorch"):
        assert any(name in row for row in rows)
    head = next(row for row in page.splitlines() if row.startswith("| weight, map"))
    assert {row.count("|") for row in rows} == {head.count("|")}


def test_a_missing_library_says_so(orthogonal, monkeypatch):
    monkeypatch.setattr(orthogonal, "geotorchs", lambda *_, **__: {})
    subject = orthogonal.square((4, 4), "cayley")
    assert subject.missing == ("geotorch",)
    assert orthogonal.square((4, 4), "householder").missing == (), "it has none"
    quick = importlib.import_module("benchmarks.timing").QUICK
    bench = orthogonal.Bench(quick)
    bench.add(subject)
    assert bench.report.rows[-1][:3] == ["4 x 4, cayley", "geotorch", "not installed"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_device_the_table_says_so(orthogonal, capsys):
    with pytest.raises(SystemExit) as stopped:
        orthogonal.main(["--device", "cuda"])
    assert stopped.value.code != 0
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.usefixtures("device")
def test_the_table_on_a_device_counts_waits_and_replays_graphs(orthogonal, capsys):
    orthogonal.main(["--quick", "--device", "cuda"])
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    head = next(row for row in rows if row[:1] == ["weight, map"])
    assert head[-2:] == ["waits", "replay"]
    mine = [row for row in rows if row[1:2] and row[1].startswith("holdfast")]
    assert len(mine) > 10
    for row in mine:
        assert row[-2] == "0"
        assert row[-1] != "no"
    assert any(row[-1] == "no" for row in rows if row[1:2] == ["torch"])


@pytest.mark.usefixtures("device")
def test_waits_of_the_host_are_counted():
    device = importlib.import_module("benchmarks.device")
    x = torch.ones(3, device="cuda")
    assert device.waits(lambda: x + 1) == 0
    assert device.waits(lambda: (x.sum().item(), x.sum().item())) == 2
    assert device.captured(lambda: x + 1) is not None
    assert device.captured(lambda: x.sum().item()) is None


def test_a_comparison_makes_do_with_few_rounds_when_time_is_up():
    timing = importlib.import_module("benchmarks.timing")
    contestant = timing.Contestant("nothing", "pass")
    effort = timing.Effort(rounds=7, block=1e-5)
    assert len(timing.compare([contestant], effort).seconds["nothing"]) == 7
    effort = timing.Effort(rounds=7, block=1e-5, most=0.0)
    assert len(timing.compare([contestant], effort).seconds["nothing"]) == 3


def test_the_peak_counts_what_is_held_at_a_time():
    device = importlib.import_module("benchmarks.device")
    layer = torch.nn.Linear(64, 64, bias=False)
    G = torch.ones(64, 64)
    assert device.kept(layer) == G.nbytes
    assert 1 <= device.peak(layer, G) / G.nbytes < 2  # the gradient

"""The benchmarks run; what they measure is for `python -m benchmarks` to say."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

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

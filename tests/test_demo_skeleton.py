"""What all demos share: options, threads, progress, table, pictures."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import click
import pytest
import torch
from click.testing import CliRunner
from matplotlib.figure import Figure
from rich.console import Console

from holdfast.demo.options import Presets
from holdfast.demo.progress import progress
from holdfast.demo.running import Outcome, print_table, run_demo


@dataclass(frozen=True)
class Settings:
    size: int = 100
    seed: int = 0
    threads: int = 1


PRESETS = Presets(Settings(), Settings(size=7))
OUTCOME = Outcome(("name", "figure"), [("a", "0.123456"), ("b", "2")], "Notes.", {})


@click.command()
@PRESETS.option("size", 1, 200, "How large.")
@PRESETS.run_options("the weights")
def command(output, *, quick, **given):
    settings = PRESETS.chosen(given, quick=quick)
    click.echo(f"{settings} {output}")


def invoke(*arguments):
    return CliRunner().invoke(command, arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Settings()),
        (["--quick"], Settings(size=7)),
        (["--quick", "--size=9", "--seed=3"], Settings(size=9, seed=3)),
    ],
)
def test_options_change_the_preset(arguments, expected):
    assert invoke(*arguments).output == f"{expected} holdfast-demo\n"


def test_the_help_has_both_defaults():
    shown = " ".join(invoke("--help").output.split())
    assert "How large. [default: 100, or 7 if quick]" in shown
    assert "Decides the weights. [default: 0]" in shown


def test_a_size_out_of_range_is_refused():
    assert invoke("--size=201").exit_code == 2


def test_threads_are_set_for_the_work_alone(tmp_path):
    seen, before = [], torch.get_num_threads()

    def work(listener):
        seen.append(torch.get_num_threads())
        return replace(OUTCOME, pictures={"a.png": Figure()})

    run_demo("Hello.", tmp_path, before + 1, work)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_a_run_prints_and_writes(tmp_path, capsys):
    def work(listener):
        listener.started("one part", 3)
        listener.updated(3)
        listener.tested("1 % right")
        return replace(OUTCOME, pictures={"a.png": Figure(), "b.png": Figure()})

    run_demo("Hello.", tmp_path / "new", 1, work)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in ("Hello.", "training (3 updates): one part", "a 0.123456", "Notes."):
        assert line in lines
    assert lines[-2:] == ["a.png", "b.png"]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"a.png", "b.png"}


def test_a_terminal_sees_bars():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with progress(console) as listener:
        listener.started("one part", 4)
        listener.updated(2)
        listener.updated()
        listener.tested("1 % right")
    assert "one part" in console.file.getvalue()
    assert "75 % 1 % right" in console.file.getvalue()


def test_a_narrow_window_cuts_no_figure():
    console = Console(file=io.StringIO(), width=8)
    print_table(console, OUTCOME)
    assert "0.123456" in console.file.getvalue()

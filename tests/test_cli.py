"""The command line: what a person types, and what comes back."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import holdfast_command
from holdfast import cli
from holdfast.demo import output
from holdfast.demo.digits import training
from holdfast.demo.digits.settings import FULL, PIXELWISE, QUICK, QUICK_PIXELWISE
from holdfast.demo.digits.summary import figures

SMALL = ("--epochs=1", "--hidden=4", "--steps=10")
PICTURES = {
    "eigenvalues.png",
    "gradient-norms.png",
    "singular-values.png",
    "task.png",
    "training-curves.png",
}


class Trained(Exception):
    """Raised in place of a training, with the settings that it was given."""


@pytest.fixture
def no_training(monkeypatch):
    """Let a training raise what it was to be done with."""

    def raises(settings, listener):
        raise Trained(settings)

    monkeypatch.setattr(training, "train_all", raises)


def digits(*arguments):
    return cli.main(["demo", "digits", *map(str, arguments)])


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Help, version, arguments


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ([], "demo"),
        (["demo"], "digits"),
        (["demo", "digits"], "--epochs"),
    ],
)
def test_every_command_explains_itself(command, shown, option, capsys):
    assert cli.main([*command, option]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Usage: {' '.join(['holdfast', *command])} [OPTIONS]")
    assert shown in out
    assert not err


def test_help_states_the_true_defaults(capsys):
    digits("--help")
    shown = " ".join(capsys.readouterr().out.split())
    for name in ("epochs", "hidden", "steps"):
        default, quick = getattr(FULL, name), getattr(QUICK, name)
        assert re.search(
            rf"--{name} INTEGER [^\[]*\[default: {default}, or {quick} if quick\]",
            shown,
        )
    assert f"[default: {FULL.seed}]" in shown
    assert f"[default: {FULL.recurrent_rate}]" in shown


def test_the_guide_has_every_command_and_every_demo():
    page = Path(__file__).parents[1] / "docs/guides/command_line.md"
    rows = re.findall(r"^\| `([^`]+)` \|", page.read_text("utf-8"), re.M)
    commands = dict(cli._commands().commands)
    demos = commands["demo"].commands
    first_words = [row.removeprefix("holdfast ").split()[0] for row in rows]
    assert sorted(first_words) == sorted([*commands, *demos])


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(
        r"holdfast, version (\d+\.\d+.*|\(not installed\))\n", capsys.readouterr().out
    )


@pytest.mark.parametrize("command", [[], ["demo"]])
def test_a_missing_command_shows_the_help(command, capsys):
    assert cli.main(command) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "'--epochs': 0 is not in the range"),
        (["--epochs", "many"], "'--epochs': 'many' is not a valid integer"),
        (["--hidden", "1"], "'--hidden': 1 is not in the range"),
        (["--steps", "7"], "'--steps': 7 is not in the range"),
        (["--pixels", "--steps", "63"], "'--steps': an image takes 64 steps"),
        (["--seed", "-1"], "'--seed': -1 is not in the range"),
        (["--threads", "0"], "'--threads': 0 is not in the range"),
        (["--threads", "100000"], "'--threads': 100000 is not in the range"),
        (["--recurrent-rate", "0"], "'--recurrent-rate': 0.0 is not in the range"),
        (["--recurrent-rate", "nan"], "'--recurrent-rate': it is not a number"),
        (["--epoch", "3"], "No such option '--epoch'"),
        (["mnist"], "unexpected extra argument (mnist)"),
    ],
)
@pytest.mark.usefixtures("no_training")
def test_wrong_arguments_are_named(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert digits(*arguments) == 2
    out, err = capsys.readouterr()
    assert message in " ".join(err.split())
    assert "holdfast demo digits --help" in err
    assert not out
    assert not files_below(tmp_path)


def test_an_unknown_command_is_named(capsys):
    assert cli.main(["demo", "mnist"]) == 2
    assert "No such command 'mnist'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], FULL),
        (["--quick"], QUICK),
        (["--pixels"], PIXELWISE),
        (["--pixels", "--quick", "--epochs=2"], replace(QUICK_PIXELWISE, epochs=2)),
        (["--quick", "--hidden=9"], replace(QUICK, hidden=9)),
        (["--recurrent-rate=0.002"], replace(FULL, recurrent_rate=0.002)),
        (
            ["--epochs=2", "--hidden=3", "--steps=11", "--seed=5", "--threads=1"],
            replace(FULL, epochs=2, hidden=3, steps=11, seed=5, threads=1),
        ),
    ],
)
@pytest.mark.usefixtures("no_training")
def test_arguments_reach_the_training(arguments, expected, tmp_path):
    with pytest.raises(Trained) as caught:
        digits(*arguments, "--output", tmp_path)
    assert caught.value.args == (expected,)


# A run


def test_a_run_prints_its_own_figures_in_plain_text_and_writes_pictures(
    capsys, tmp_path, monkeypatch
):
    seen = []
    train_all = training.train_all

    def watched(settings, listener):
        seen.extend(train_all(settings, listener))
        return tuple(seen)

    monkeypatch.setattr(training, "train_all", watched)
    monkeypatch.setattr(output, "DOTS_PER_INCH", 30)
    assert digits(*SMALL, "--output", tmp_path / "new" / "deep") == 0
    out, err = capsys.readouterr()
    assert not err
    assert out.isprintable() or set(filter(str.isspace, out)) == {" ", "\n"}
    rows = [" ".join(line.split()) for line in out.splitlines()]
    for run in seen:
        row = f"{run.kernel.value.partition(' ')[0]} {' '.join(figures(run))}"
        assert row in rows
        # One epoch of 1437 sequences in batches of 64.
        assert f"training (23 updates): {run.kernel.value}" in rows
    assert f"Pictures in {tmp_path / 'new' / 'deep'}:" in rows
    assert set(files_below(tmp_path / "new" / "deep")) == PICTURES < set(rows)


# What goes wrong


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("file", "it is a file"),
        ("file/child", "Not a directory"),
        ("file/child/grandchild", "Not a directory"),
    ],
)
def test_an_unusable_folder_is_refused_before_the_training(
    path, reason, capsys, tmp_path
):
    (tmp_path / "file").write_text("kept")
    assert digits("--output", tmp_path / path) == 1
    out, err = capsys.readouterr()
    assert err == f"Error: cannot write to the folder {tmp_path / path}: {reason}\n"
    assert not out
    assert files_below(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.usefixtures("no_training")
def test_a_folder_that_takes_no_files_is_refused_before_the_training(
    capsys, tmp_path, monkeypatch
):
    def refuses(**options):
        assert options == {"dir": tmp_path / "new"}
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuses)
    assert digits("--output", tmp_path / "new") == 1
    assert capsys.readouterr().err.endswith("new: Read-only file system\n")
    assert not files_below(tmp_path)


@pytest.mark.skipif(
    getattr(os, "geteuid", int)() == 0, reason="permissions do not bind root"
)
@pytest.mark.usefixtures("no_training")
def test_a_protected_folder_is_refused_before_the_training(capsys, tmp_path):
    tmp_path.chmod(0o500)
    try:
        assert digits("--output", tmp_path) == 1
    finally:
        tmp_path.chmod(0o700)
    assert "Permission denied" in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_an_error(capsys, tmp_path, monkeypatch):
    def half(figure, path, **options):
        Path(path).write_bytes(b"\x89PNG")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", half)
    folder = tmp_path / "new"
    assert digits(*SMALL, "--output", folder) == 1
    reason = f"cannot write {folder / 'task.png'}: No space left on device"
    assert capsys.readouterr().err == f"Error: {reason}\n"
    assert not files_below(tmp_path)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("module", "package"),
    [("matplotlib", "matplotlib"), ("rich", "rich"), ("sklearn", "scikit-learn")],
)
def test_missing_packages_are_named(module, package, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    assert digits("--output", tmp_path / "new") == 1
    out, err = capsys.readouterr()
    assert err.startswith("Error: ")
    assert f"python -m pip install {package}`" in err
    assert "holdfast[demo]" in err
    assert not out
    assert not files_below(tmp_path)


def test_the_command_starts_without_the_packages_of_the_demo(tmp_path):
    code = (
        "import sys\n"
        "for name in ('click', 'matplotlib', 'rich', 'sklearn'):\n"
        "    sys.modules[name] = None\n"
        "from holdfast.cli import main\n"
        "sys.exit(main(['--help']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "python -m pip install click matplotlib rich scikit-learn`" in done.stderr
    assert "Traceback" not in done.stderr


# Ctrl-C


@contextlib.contextmanager
def run_beside(code, arguments, folder):
    """Run code in another process, which is there no longer afterwards."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_ctrl_c_ends_a_training_with_one_line(tmp_path):
    # A shell that starts the tests in the background lets them ignore SIGINT.
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from holdfast.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["demo", "digits", "--quick", "--epochs=1000", "--output=new/deep"]
    with run_beside(code, arguments, tmp_path) as process:
        assert any(line.startswith("training") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().splitlines() == ["Interrupted."]
    assert "accuracy" not in out
    assert not files_below(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_while_torch_is_imported_ends_without_a_traceback(tmp_path):
    slow = 'import time; print("importing", flush=True); time.sleep(60)'
    (tmp_path / "torch.py").write_text(slow)
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from holdfast_command import main\n"
        "sys.exit(main())"
    )
    with run_beside(code, [], tmp_path) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "Interrupted.\n"


def test_the_script_runs_the_command(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGINT)
    project = Path(__file__).parents[1] / "pyproject.toml"
    scripts = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"holdfast": "holdfast_command:main"}
    monkeypatch.setattr(sys, "argv", ["holdfast", "--version"])
    assert holdfast_command.main() == 0
    assert "holdfast" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_leaves_only_whole_pictures(capsys, tmp_path, monkeypatch):
    whole, written = Figure.savefig, []

    def interrupted(figure, path, **options):
        if len(written) == 2:
            Path(path).write_bytes(b"\x89PNG")
            raise KeyboardInterrupt
        written.append(path)
        whole(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", interrupted)
    monkeypatch.setattr(output, "DOTS_PER_INCH", 30)
    assert digits(*SMALL, "--output", tmp_path) == 130
    assert capsys.readouterr().err.strip() == "Interrupted."
    assert files_below(tmp_path) == ["task.png", "training-curves.png"]


def test_a_full_device_is_an_error_without_a_traceback(monkeypatch, capsys):
    def full(_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli, "_run", full)
    assert cli.main([]) == 1
    assert capsys.readouterr().err == "Error: No space left on device\n"


def test_another_error_of_the_system_keeps_its_traceback(monkeypatch):
    def failing(_: object) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(cli, "_run", failing)
    with pytest.raises(OSError, match="broken"):
        cli.main([])

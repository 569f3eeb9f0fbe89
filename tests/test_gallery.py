"""The gallery runs, prints what it claims, and draws."""

from __future__ import annotations

import ast
import io
import re
import runpy
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from matplotlib import pyplot as plt

GALLERY = Path(__file__).parent.parent / "docs/gallery"
TUTORIAL = GALLERY / "plot_parametrizations_tutorial.py"
SHORT = sorted(path for path in GALLERY.glob("plot_*.py") if path != TUTORIAL)
PICTURES = {
    "symmetric": "before: any matrix, after: symmetric",
    "convolution": "to channel 0, to channel 1, to channel 2",
    "chains": "no map, Skew, Skew, Cayley, Symmetric, MatrixExp",
    "pruning": "assigned, the weight: pruned",
    "training": "plain, Skew, Cayley",
    "cayley-sign": "assigned, as printed: distance 2.5458, holdfast: distance 0.0000",
    "cayley-angles": "Assigning a rotation, in float32",
}
CHECKS = {"check_distance", "refusal"}


@dataclass
class Run:
    """What a run of the script leaves behind."""

    folder: Path
    printed: str
    titles: dict[str, str]

    def numbers_after(self, label: str) -> list[float]:
        """Return the numbers on the line that begins with a label and spaces."""
        pattern = rf"^{re.escape(label)}  +(.*)$"
        (line,) = re.findall(pattern, self.printed, re.MULTILINE)
        return [float(number) for number in re.findall(r"[-+\d.e]*\d", line)]

    def lines_between(self, first: str, last: str) -> list[str]:
        """Return the lines that lie between two others."""
        lines = self.printed.splitlines()
        return lines[lines.index(first) + 1 : lines.index(last)]


def run_as_script(*arguments: str) -> str:
    """Run the script as ``python plot_...py ARGUMENTS`` does; return what it prints."""
    printed = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(printed),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        patch.setattr("sys.argv", [str(TUTORIAL), *arguments])
        runpy.run_path(str(TUTORIAL), run_name="__main__")
    return printed.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery") / "new" / "pictures"
    with mpl.rc_context():
        try:
            printed = run_as_script(str(folder))
            figures = [plt.figure(number) for number in plt.get_fignums()]
            titles = {
                figure.get_label(): ", ".join(
                    ax.get_title() for ax in figure.axes if ax.get_title()
                )
                for figure in figures
            }
        finally:
            plt.close("all")
            torch.set_printoptions(profile="default")
    return Run(folder, printed, titles)


def cells(source: str) -> list[ast.Module]:
    """Return the code of each cell."""
    return [ast.parse(cell) for cell in re.split(r"^# %%.*$", source, flags=re.M)]


def calls(cell: ast.Module) -> set[str]:
    return {
        node.func.id
        for node in ast.walk(cell)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def only_claims(cell: ast.Module) -> bool:
    """Tell whether a cell prints and checks nothing."""
    checked = any(isinstance(node, ast.Assert) for node in ast.walk(cell))
    return "print" in calls(cell) and not checked and not calls(cell) & CHECKS


@pytest.mark.parametrize("page", [TUTORIAL, *SHORT], ids=lambda page: page.stem)
def test_every_cell_that_prints_also_checks(page):
    found = cells(page.read_text("utf-8"))
    assert len(found) > (30 if page == TUTORIAL else 2)
    assert [ast.unparse(cell) for cell in found if only_claims(cell)] == []


@pytest.mark.parametrize("page", SHORT, ids=lambda page: page.stem)
def test_a_short_page_runs_and_its_figure_states_what_it_shows(page, tmp_path):
    with mpl.rc_context(), redirect_stdout(io.StringIO()) as printed:
        try:
            names = runpy.run_path(str(page), run_name="__main__")
            (number,) = plt.get_fignums()
            figure = plt.figure(number)
            figure.savefig(tmp_path / "picture.png", dpi=100)
        finally:
            plt.close("all")
    claims = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
    assert len(max(claims, key=len).split()) >= 5
    assert printed.getvalue()
    assert names["__doc__"].strip().splitlines()[0] not in claims  # more than a name
    pixels = plt.imread(tmp_path / "picture.png")[..., :3]
    assert 0.3 < (pixels == 1).all(axis=-1).mean() < 0.98


def test_a_cell_that_only_claims_is_found():
    assert only_claims(ast.parse("W = make()\nprint('symmetric:', W)"))
    assert not only_claims(ast.parse("print(W)\nassert W == W.T"))
    assert not only_claims(ast.parse("W = make()"))


def test_the_pictures_are_written_and_left_open(run):
    assert run.titles == PICTURES
    assert {path.stem for path in run.folder.iterdir()} == set(PICTURES)
    named = re.findall(r"^wrote (.*)$", run.printed, re.MULTILINE)
    assert {Path(path) for path in named} == set(run.folder.iterdir())


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_something_to_see(run, name):
    pixels = plt.imread(run.folder / f"{name}.png")[..., :3]
    height, width, _ = pixels.shape
    assert height > 400
    assert width > 900
    white = (pixels == 1).all(axis=-1).mean()
    assert 0.1 < white < 0.97
    assert len({tuple(pixel) for pixel in pixels[::7, ::7].reshape(-1, 3)}) > 20


def test_T2_the_repr_is_printed_line_by_line(run):
    assert (
        """\
before: Linear(in_features=3, out_features=3, bias=True)
after: ParametrizedLinear(
  in_features=3, out_features=3, bias=True
  (parametrizations): ModuleDict(
    (weight): ParametrizationList(
      (0): Symmetric()
    )
  )
)
"""
        in run.printed
    )


def test_T6_three_evaluations_outside_a_scope_and_one_inside(run):
    outside, inside = "three reads outside a scope:", "three reads inside a scope:"
    step = "a training step between two reads:"
    assert run.lines_between(outside, inside) == 3 * ["  evaluated"]
    assert run.lines_between(inside, step) == ["  evaluated"]


def test_T9_the_wrong_distance_of_the_original_is_reproduced(run):
    assert run.numbers_after("as printed:") == [2.5458]
    assert run.numbers_after("with holdfast:") == [0]


@pytest.mark.parametrize(
    "label",
    ["rotation", "rotation by 180°", "reflection", "permutation", "−I of size 3"],
)
def test_T9_the_table_shows_zero_for_both_maps_of_ours(run, label):
    cayley, exponential = run.numbers_after(label)[-2:]
    assert cayley < 1e-5
    assert exponential < 1e-5


def test_T14_the_table_covers_four_layers(run):
    hosts = "Linear(6, 4)", "Conv2d(3, 8, 3)", "RNN(4, 6)", "MultiheadAttention(6, 2)"
    for host in hosts:
        residual, moved, largest = run.numbers_after(host)
        assert residual < 1e-5
        assert moved < 1e-5
        assert abs(largest - 1) < 1e-3


def test_a_folder_that_cannot_be_made_is_refused_first(tmp_path, capsys):
    taken = tmp_path / "file"
    taken.touch()
    with mpl.rc_context(), pytest.raises(SystemExit) as stop:
        run_as_script(str(taken))
    torch.set_printoptions(profile="default")
    assert stop.value.code == 2
    assert f"cannot make the folder {taken}" in capsys.readouterr().err

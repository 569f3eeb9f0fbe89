"""The demo of known optima: problems, races, table, pictures."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from matplotlib import image
from torch.testing import assert_close

from holdfast import cli
from holdfast.demo.stiefel import race as racing
from holdfast.demo.stiefel.pictures import STYLES, aligned, angle, draw_pictures
from holdfast.demo.stiefel.problems import patches, principal_components, procrustes
from holdfast.demo.stiefel.race import RATES, TOLERANCE, WAYS, Way, race, race_all
from holdfast.demo.stiefel.settings import QUICK
from holdfast.demo.stiefel.summary import _NOTES, figures, outcome
from holdfast.sets import Stiefel
from support import Log

PROBLEMS = (principal_components(5, 4, seed=0), procrustes(8, seed=0))
MOVING, STATIC, *_ = WAYS
GENEROUS = 60.0
problems = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)


@pytest.fixture(scope="module")
def races():
    return race_all(replace(QUICK, pixels=4, components=3, size=6), Log())


# Problems


def test_patches_are_those_of_the_photographs():
    X = patches(6)
    assert X.shape[1] == 36
    assert_close(X.mean(1), torch.zeros(len(X), dtype=X.dtype), atol=1e-10, rtol=0)
    assert X.std() > 10


def test_the_best_subspace_explains_what_the_largest_eigenvalues_do():
    problem = principal_components(5, 4, seed=0)
    values = torch.linalg.eigvalsh(patches(5).T @ patches(5)).flip(0)
    explained = (values[:4].sum() / values.sum()).item()
    assert problem.loss(problem.best).item() == pytest.approx(-explained)


def test_the_best_rotation_is_one_and_fits_the_points():
    problem = procrustes(8, seed=0)
    assert torch.linalg.det(problem.best).item() == pytest.approx(1.0)
    # What is left is the noise: a quarter of the points' own size.
    assert problem.loss(problem.best).item() == pytest.approx(0.25, abs=0.1)
    assert problem.loss(problem.start).item() > 1


@problems
def test_nothing_orthonormal_is_better_than_the_best(problem):
    W = Stiefel().sample((500, *problem.best.shape), dtype=torch.float64)
    shares = [problem.share_left(problem.loss(Q).item()) for Q in W]
    assert min(shares) > 0
    assert problem.share_left(problem.loss(problem.best).item()) == 0
    assert problem.share_left(problem.loss(problem.start).item()) == 1


@problems
def test_without_the_constraint_the_loss_falls_below_the_best(problem):
    free = Way("free", lambda host: None)
    run = race(problem, free, 0.03, 200, GENEROUS)
    assert run.shares[-1] < -0.01
    assert Stiefel().residual(run.weight) > 0.1


# Races


@problems
@pytest.mark.parametrize("way", [w for w in WAYS if w.installed], ids=lambda w: w.label)
def test_every_way_begins_at_the_start_and_stays_orthonormal(problem, way):
    run = race(problem, way, 0.03, 20, GENEROUS)
    assert run.shares[0] == pytest.approx(1.0)
    assert run.shares[-1] < 0.9
    assert len(run.shares) == len(run.seconds) == 20
    assert Stiefel().residual(run.weight) < 1e-12


@problems
def test_a_moving_base_reaches_the_optimum(problem):
    run = race(problem, MOVING, 0.03, 2000, GENEROUS)
    assert run.arrived
    assert 0 <= run.shares[-1] <= TOLERANCE
    assert run.shares[-2] > TOLERANCE


def test_what_is_trained_spans_what_eigh_finds():
    (problem, _) = PROBLEMS
    run = race(problem, MOVING, 0.03, 2000, GENEROUS)
    assert angle(problem.best, run.weight) < 1
    assert_close(aligned(run.weight, problem), problem.best, atol=0.02, rtol=0)
    assert angle(problem.best, problem.start) > 45


def test_a_race_ends_at_its_limits():
    (problem, _) = PROBLEMS
    assert len(race(problem, STATIC, 0.03, 7, GENEROUS).shares) == 7
    late = race(problem, STATIC, 0.03, 7, 0.0)
    assert len(late.shares) == 1
    assert not late.arrived


def test_the_best_rate_is_the_one_that_arrives_first(monkeypatch):
    (problem, _) = PROBLEMS
    real = race(problem, STATIC, 0.03, 1, GENEROUS)
    ends = {0.03: (1e-7, 5.0), 0.1: (1e-7, 2.0), 0.01: (1e-3, 1.0)}
    limits = []

    def fake(problem, way, rate, steps, limit):
        limits.append(limit)
        share, seconds = ends[rate]
        return replace(real, rate=rate, shares=[share], seconds=[seconds])

    monkeypatch.setattr(racing, "race", fake)
    best = racing.best_of_rates(problem, STATIC, QUICK, Log())
    assert best.rate == 0.1
    assert limits == [QUICK.seconds, 5.0, 2.0]
    ends[0.03] = ends[0.1] = (1e-2, 9.0)
    assert racing.best_of_rates(problem, STATIC, QUICK, Log()).rate == 0.01
    assert set(ends) == set(RATES)


# Table and pictures


def test_a_package_that_is_missing_is_said_to_be(races, monkeypatch):
    absent = Way("GeoTorch", WAYS[-1].register, package="no_such_package")
    monkeypatch.setattr("holdfast.demo.stiefel.summary.WAYS", (MOVING, absent, absent))
    shown = outcome([run for run in races if run.way == MOVING])
    names = [row[0].strip() for row in shown.rows]
    assert names == [
        "PCA: eigh",
        MOVING.label,
        "no_such_package: not installed",
        "Procrustes: svd",
        MOVING.label,
        "no_such_package: not installed",
    ]
    assert {len(row) for row in shown.rows} == {len(shown.headings)}


def test_figures_are_those_of_the_race(races):
    run = replace(races[0], rate=0.1, shares=[1.0, 2.5e-7], seconds=[0.5, 3.0])
    assert figures(run)[:4] == ("3.00", "2", "1500.00", "2.5e-07")
    assert figures(run)[-1] == "0.1"
    assert figures(replace(run, shares=[1.0, 0.5]))[0] == "> 3.0"


def test_pictures_show_the_races(races):
    pictures = draw_pictures(races)
    for ax, name in zip(
        pictures["stiefel-time.png"].axes, ("PCA", "Procrustes"), strict=True
    ):
        lines = {line.get_label(): line for line in ax.get_lines()}
        there = [run for run in races if run.problem.name == name]
        assert {"tolerance", *(run.way.label for run in there)} == set(lines)
        for run in there:
            assert list(lines[run.way.label].get_ydata()) == list(run.shares)
    assert len({(s.color, s.marker) for s in STYLES.values()}) == len(WAYS)
    shown = pictures["stiefel-components.png"].axes
    first = shown[0].get_images()[0].get_array().ravel()
    best = races[0].problem.best[:, 0]
    assert_close(torch.tensor(first), best)


def test_the_command_runs(tmp_path, capsys):
    sizes = ["--pixels=4", "--components=3", "--size=6", "--steps=50"]
    arguments = ["demo", "stiefel", "--quick", *sizes, f"--output={tmp_path}"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "PCA: eigh" in out
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    assert _NOTES in out, "no line was wrapped"
    for path in tmp_path.iterdir():
        pixels = image.imread(path)
        assert math.prod(pixels.shape[:2]) > 1e5
        assert pixels.std() > 0.02
    assert len([*tmp_path.iterdir()]) == 2


def test_components_that_leave_no_choice_are_refused(capsys):
    assert cli.main(["demo", "stiefel", "--pixels=2", "--components=4"]) == 2
    assert "at most 3 components" in capsys.readouterr().err

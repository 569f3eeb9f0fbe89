"""The demo of covariances: likelihood, training, table, pictures."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from matplotlib import image
from torch.testing import assert_close

from holdfast import cli
from holdfast.demo.spd.fitting import (
    RATES,
    WAYS,
    divergence,
    fit,
    fit_all,
    load_wines,
    random_start,
    smallest_eigenvalue,
)
from holdfast.demo.spd.pictures import best_of, draw_pictures, ellipse, main_plane
from holdfast.demo.spd.settings import QUICK, Settings
from holdfast.demo.spd.summary import _NOTES, figures, outcome
from holdfast.sets import SymmetricPositiveDefinite
from support import Log

WINES = load_wines()
BEST = WINES.covariances
KEPT, LOOSE = WAYS[:3], WAYS[3:]


@pytest.fixture(scope="module")
def fits():
    return fit_all(WINES, replace(QUICK, steps=30), Log())


# The optimum


def test_the_wines_are_all_there():
    assert WINES.labels.bincount().tolist() == [59, 71, 48]
    assert WINES.shares.sum() == 1
    assert_close(WINES.measurements.std(0), torch.ones(13, dtype=torch.float64))


def test_the_likelihood_is_that_of_normal_distributions():
    start = random_start(0)
    total = torch.tensor(0.0, dtype=torch.float64)
    for wine in range(3):
        normal = torch.distributions.MultivariateNormal(WINES.means[wine], start[wine])
        total -= normal.log_prob(WINES.of(wine)).sum()
    mean = total / len(WINES.labels) - 13 / 2 * math.log(2 * math.pi)
    assert_close(divergence(start, BEST, WINES.shares), mean)


def test_the_samples_covariances_are_the_optimum():
    W = BEST.clone().requires_grad_()
    least = divergence(W, BEST, WINES.shares)
    (slope,) = torch.autograd.grad(least, W)
    assert_close(slope, torch.zeros_like(slope), atol=1e-11, rtol=0)
    for seed in range(20):
        other = BEST + 0.01 * random_start(seed)
        assert divergence(other, BEST, WINES.shares) > least


def test_an_indefinite_matrix_can_look_better_than_the_optimum():
    V = torch.linalg.eigh(BEST).eigenvectors[..., :1]
    W = BEST - 2 * smallest_eigenvalue(BEST) * V @ V.mT
    least = divergence(BEST, BEST, WINES.shares)
    assert smallest_eigenvalue(W) < 0
    assert divergence(W, BEST, WINES.shares) < least


# Training


@pytest.mark.parametrize("way", KEPT, ids=lambda way: way.label)
@pytest.mark.parametrize("rate", RATES)
def test_spd_keeps_the_matrices_definite(way, rate):
    run = fit(way, rate, WINES, Settings(steps=40), Log())
    assert run.lost is None
    assert min(run.smallest) > 0
    assert len(run.excess) == len(run.smallest) == 41
    assert SymmetricPositiveDefinite().contains(run.covariances)
    assert run.excess[-1] < run.excess[0]
    assert min(run.excess) > -1e-12


@pytest.mark.parametrize("way", LOOSE, ids=lambda way: way.label)
def test_without_it_definiteness_is_lost_and_the_training_ends(way):
    run = fit(way, 0.1, WINES, Settings(steps=40), Log())
    assert run.lost is not None
    assert 0 < run.lost == len(run.excess) == len(run.smallest)
    assert smallest_eigenvalue(run.covariances) == run.smallest[-1] > 0


def test_training_reaches_the_optimum():
    run = fit(KEPT[0], 0.03, WINES, Settings(), Log())
    assert run.excess[-1] < 1e-6
    assert_close(run.covariances, BEST, atol=1e-4, rtol=0)


def test_all_begin_at_the_same_matrices(fits):
    assert len(fits) == len(WAYS) * len(RATES)
    firsts = [(run.excess[0], run.smallest[0]) for run in fits]
    assert_close(torch.tensor(firsts), torch.tensor(firsts[:1]).expand(len(fits), 2))
    assert not torch.equal(random_start(0), random_start(1))


# Table and pictures


def test_figures_are_those_of_the_fit(fits):
    run = replace(fits[0], rate=0.5, excess=[2.0, 1.26e-3], smallest=[0.2, 0.01234])
    half = replace(run, covariances=BEST / 2)
    assert figures(half, BEST) == ("0.5", "1.3e-03", "5.0e-01", "0.0123", "yes")
    assert figures(replace(half, lost=12), BEST)[-1] == "to step 11"


def test_the_table_has_the_optimum_and_every_fit(fits):
    shown = outcome(fits, WINES, QUICK)
    assert len(shown.rows) == 1 + len(fits)
    assert {len(row) for row in shown.rows} == {len(shown.headings)}
    assert shown.rows[0][4] == f"{torch.linalg.eigvalsh(BEST).min().item():.4f}"


def test_the_best_fit_is_definite_and_nearest(fits):
    (run,) = fits[:1]
    one, two, three = (
        replace(run, rate=1.0, excess=[0.2], lost=None),
        replace(run, rate=2.0, excess=[0.1], lost=None),
        replace(run, rate=3.0, excess=[0.01], lost=7),
    )
    assert best_of([one, two, three], run.way.label) is two
    assert best_of([three, replace(three, lost=9)], run.way.label).lost == 9


def test_an_ellipse_is_two_deviations_away():
    plane, covariance = main_plane(WINES), BEST[0]
    points = ellipse(covariance, plane)
    inverse = torch.linalg.inv(plane.T @ covariance @ plane)
    distances = torch.einsum("pi,ij,pj->p", points, inverse, points).sqrt()
    assert_close(distances, torch.full_like(distances, 2.0))
    assert_close(plane.T @ plane, torch.eye(2, dtype=torch.float64))


def test_pictures_show_what_was_trained(fits):
    pictures = draw_pictures(fits, WINES, QUICK)
    plane = main_plane(WINES)
    ax, _ = pictures["spd-ellipses.png"].axes
    trained = [line.get_xydata() for line in ax.get_lines()][2::3]
    covariances = best_of(fits, WAYS[0].label).covariances
    for wine, drawn in enumerate(trained):
        expected = WINES.means[wine] @ plane + ellipse(covariances[wine], plane)
        assert_close(torch.tensor(drawn), expected)
    excess, _ = pictures["spd-training.png"].axes
    curves = [line for line in excess.get_lines() if "rate" in line.get_label()]
    for way, line in zip(WAYS, curves, strict=True):
        assert line.get_ydata().tolist() == best_of(fits, way.label).excess


def test_the_command_runs(tmp_path, capsys):
    arguments = ["demo", "spd", "--quick", "--steps=12", f"--output={tmp_path}"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "spd, cholesky" in out
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    assert _NOTES in out, "no line was wrapped"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["spd-ellipses.png", "spd-training.png"]
    for path in tmp_path.iterdir():
        assert image.imread(path).std() > 0.02

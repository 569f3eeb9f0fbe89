"""The demo of the digits: what it trains, measures, prints and draws."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from matplotlib import image
from matplotlib.figure import Figure
from rich.console import Console
from torch.testing import assert_close

from holdfast import plot
from holdfast.demo.digits import pictures
from holdfast.demo.digits.data import load_split
from holdfast.demo.digits.measuring import (
    gradient_norms,
    kernel_of,
    residual,
    score,
    spectrum,
)
from holdfast.demo.digits.network import Kernel, build_network, mod_relu
from holdfast.demo.digits.settings import QUICK, Settings
from holdfast.demo.digits.summary import figures, outcome
from holdfast.demo.digits.training import Trainer, train_all
from holdfast.demo.output import save_figure
from holdfast.demo.running import print_table

TINY = Settings(hidden=6, steps=12, epochs=1, batch=400)
ORTHOGONAL, ORDINARY, SAME_START = Kernel
PAGES = (
    pictures.training_curves,
    pictures.eigenvalues,
    pictures.singular_values,
    lambda runs: pictures.gradient_norms(runs, QUICK),
)


class Log:
    """A listener that writes down what it hears."""

    def __init__(self):
        self.lines = []

    def started(self, name, updates):
        self.lines.append((name, updates))

    def updated(self, updates=1):
        self.lines += ["update"] * updates

    def tested(self, result):
        self.lines.append(result)


@pytest.fixture(scope="module")
def runs():
    return train_all(QUICK, Log())


def trainer(kernel, settings=TINY):
    return Trainer(kernel, settings, *load_split(settings.seed))


def digits_of(settings=TINY):
    _, tested = load_split(settings.seed)
    sequences = tested.padded(settings.steps, torch.Generator().manual_seed(0))
    return sequences, tested.labels


# Data


def test_the_split_is_whole_balanced_and_without_overlap():
    training, tested = load_split(0)
    assert len(training.labels) + len(tested.labels) == 1797
    images = torch.cat([training.images, tested.images], 1).transpose(0, 1)
    assert len(torch.unique(images, dim=0)) == 1797
    shares = [part.labels.bincount() / len(part.labels) for part in (training, tested)]
    assert_close(*shares, atol=0.01, rtol=0)


def test_the_split_depends_on_the_seed():
    labels = [load_split(seed)[1].labels for seed in (0, 0, 1)]
    assert torch.equal(labels[0], labels[1])
    assert not torch.equal(labels[0], labels[2])


def test_rows_come_first_and_noise_follows():
    _, tested = load_split(0)
    generator = torch.Generator().manual_seed(0)
    first, second = (tested.padded(20, generator) for _ in range(2))
    assert first.shape == (20, len(tested.labels), 8)
    for sequences in (first, second):
        assert torch.equal(sequences[:8], tested.images)
    assert not torch.equal(first[8:], second[8:])
    assert first.min() >= -0.5
    assert first.max() <= 0.5
    # The noise says nothing about the digit: it has no direction left to tell.
    assert first[8:].mean().abs() < 0.01


def test_a_sequence_without_noise_is_the_image():
    _, tested = load_split(0)
    assert torch.equal(tested.padded(8, torch.Generator()), tested.images)


def test_pixels_enter_in_the_order_of_reading():
    (_, rows), (_, pixels) = load_split(0), load_split(0, 1)
    assert pixels.images.shape == (64, len(rows.labels), 1)
    assert torch.equal(
        pixels.images.squeeze(2).T, rows.images.transpose(0, 1).flatten(1)
    )
    assert torch.equal(rows.labels, pixels.labels)


# Networks


def test_networks_differ_in_the_kernel_alone():
    networks = [build_network(kernel, TINY) for kernel in Kernel]
    for name in ("input.weight", "bias", "readout.weight", "readout.bias"):
        values = [network.get_parameter(name) for network in networks]
        assert all(torch.equal(values[0], value) for value in values)
    orthogonal, ordinary, same = map(kernel_of, networks)
    assert torch.equal(orthogonal, same)
    assert not torch.allclose(orthogonal, ordinary)


def test_the_constraint_is_on_one_kernel_only():
    names = [
        "recurrent.parametrizations.weight.original" in dict(net.named_parameters())
        for net in (build_network(kernel, TINY) for kernel in Kernel)
    ]
    assert names == [True, False, False]


def test_building_a_network_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    build_network(ORTHOGONAL, TINY)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("steps", [1, 12])
def test_the_kernel_is_computed_once_per_pass(steps):
    network = build_network(ORTHOGONAL, TINY)
    calls = []
    link = network.recurrent.parametrizations["weight"][0]
    link.register_forward_hook(lambda *_: calls.append(1))
    network(torch.zeros(steps, 2, 8)).sum().backward()
    assert len(calls) == 1
    network.recurrent(torch.zeros(2, 6)), network.recurrent(torch.zeros(2, 6))
    assert len(calls) == 3, "outside the scope each read computes it"


def test_mod_relu():
    values, bias = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0]), torch.tensor(-1.0)
    assert_close(mod_relu(values, bias), torch.tensor([-2.0, 0.0, 0.0, 0.0, 2.0]))
    assert_close(mod_relu(values, -bias), torch.tensor([-4.0, -1.5, 0.0, 1.5, 4.0]))


# Training


def test_trainers_see_the_same_sequences_in_the_same_order(monkeypatch):
    seen = {}
    for kernel in Kernel:
        one = trainer(kernel)
        batches = seen[kernel] = [(one.sequences, one.labels)]
        update = one.update

        def watched(sequences, labels, batches=batches, update=update):
            batches.append((sequences.clone(), labels))
            update(sequences, labels)

        monkeypatch.setattr(one, "update", watched)
        one.run(Log())
    for batches in zip(*seen.values(), strict=True):
        for first, other in pairwise(batches):
            assert torch.equal(first[0], other[0])
            assert torch.equal(first[1], other[1])
    assert len(seen[ORTHOGONAL]) == 1 + math.ceil(1437 / 400)


def test_noise_is_new_in_every_epoch(monkeypatch):
    one = trainer(ORDINARY, replace(TINY, epochs=2, batch=2000))
    seen = []
    monkeypatch.setattr(one, "update", lambda sequences, _: seen.append(sequences[8:]))
    one.run(Log())
    first, second = (noise.flatten().sort().values for noise in seen)
    assert not torch.equal(first, second)


def test_the_same_seed_gives_the_same_runs():
    first, again, other = (
        [replace(run, seconds=0.0) for run in train_all(replace(TINY, seed=s), Log())]
        for s in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_the_listener_hears_of_everything():
    log = Log()
    run = trainer(SAME_START, replace(TINY, epochs=2)).run(log)
    (name, updates), *rest = log.lines
    assert (name, updates) == (SAME_START.value, rest.count("update"))
    results = [line for line in rest if line != "update"]
    assert len(results) == 2
    assert results[-1] == f"{100 * run.accuracy:.1f} % right"


def test_a_gradient_that_overflowed_is_not_applied():
    one = trainer(ORDINARY)
    before = {name: value.clone() for name, value in one.network.state_dict().items()}
    one.update(torch.full_like(one.sequences, math.inf), one.labels)
    assert_close(one.network.state_dict(), before, atol=0, rtol=0)
    one.update(one.sequences, one.labels)
    assert not torch.equal(one.network.bias, before["bias"])


def test_the_constraint_holds_and_only_where_it_is_set(runs):
    orthogonal, ordinary, same = runs
    assert max(orthogonal.before.residual, orthogonal.after.residual) < 1e-6
    assert same.before.residual < 1e-6
    assert same.after.residual > 1e-3
    assert min(ordinary.before.residual, ordinary.after.residual) > 0.1


def test_the_orthogonal_network_remembers_and_the_ordinary_one_does_not(runs):
    orthogonal, ordinary, _ = runs
    assert orthogonal.accuracy > 0.6
    assert ordinary.accuracy < 0.2


def test_gradients_reach_the_image_through_the_orthogonal_kernel_alone(runs):
    orthogonal, ordinary, _ = runs
    for norms in (orthogonal.before.gradient_norms, orthogonal.after.gradient_norms):
        assert 0.3 < norms[0] / norms[-1] < 3
    assert ordinary.before.gradient_norms[0] < 1e-6 * ordinary.before.gradient_norms[-1]


def test_moments_belong_to_the_run(runs):
    for run in runs:
        assert [moment.epoch for moment in run.moments] == list(range(QUICK.epochs + 1))
        assert run.moments[0].accuracy < 0.3
        assert run.accuracy == run.moments[-1].accuracy
        assert run.seconds > 0


# Measures


def test_score_of_a_network_that_always_says_four():
    network = build_network(ORDINARY, TINY)
    sequences, labels = digits_of()
    with torch.no_grad():
        network.readout.weight.zero_()
        network.readout.bias.copy_(torch.arange(10) == 4)
    loss, accuracy = score(network, sequences, labels)
    share = (labels == 4).double().mean().item()
    assert accuracy == pytest.approx(share)
    assert loss == pytest.approx(math.log(9 + math.e) - share, rel=1e-5)


def test_the_last_gradient_is_that_of_the_readout():
    network = build_network(ORDINARY, TINY)
    sequences, labels = digits_of()
    norms = gradient_norms(network, sequences, labels)
    error = network(sequences).softmax(1) - torch.eye(10)[labels]
    last = (error @ network.readout.weight).norm(dim=1).mean().item()
    assert len(norms) == TINY.steps
    assert norms[-1] == pytest.approx(last, rel=1e-5)


def test_gradients_keep_their_length_where_mod_relu_has_slope_one():
    network = build_network(ORTHOGONAL, TINY)
    with torch.no_grad():
        network.bias.fill_(1.0)
    norms = gradient_norms(network, *digits_of())
    assert norms == pytest.approx([norms[-1]] * TINY.steps, rel=1e-4)
    with torch.no_grad():
        network.bias.fill_(-0.05)
    norms = gradient_norms(network, *digits_of())
    assert norms[0] < 0.9 * norms[-1], "a negative bias cuts some of it off"


def test_residual_and_spectrum_of_known_kernels():
    network = build_network(ORDINARY, replace(TINY, hidden=2))
    with torch.no_grad():
        network.recurrent.weight.copy_(torch.tensor([[0.0, -2.0], [2.0, 0.0]]))
    assert residual(network) == pytest.approx(3.0)
    found = spectrum(network)
    assert found.singular_values == pytest.approx((2.0, 2.0))
    assert sorted(z.imag for z in found.eigenvalues) == pytest.approx([-2.0, 2.0])
    assert [z.real for z in found.eigenvalues] == pytest.approx([0.0, 0.0])


def test_a_diverged_kernel_has_no_spectrum():
    network = build_network(ORDINARY, TINY)
    with torch.no_grad():
        network.recurrent.weight.fill_(math.inf)
    found = spectrum(network)
    assert len(found.eigenvalues) == len(found.singular_values) == TINY.hidden
    assert all(map(math.isnan, found.singular_values))


# Table


def printed(runs, width=80):
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    print_table(console, outcome(runs, QUICK))
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_the_table_shows_the_figures_of_the_runs(runs):
    run = replace(
        runs[0],
        moments=(runs[0].moments[0], replace(runs[0].moments[-1], accuracy=0.4321)),
        before=replace(runs[0].before, residual=1.26e-3),
        after=replace(runs[0].after, residual=4.5e-7, gradient_norms=(0.07, 9.0, 0.8)),
        seconds=77.77,
    )
    row = ["43.2 %", "1.3e-03", "4.5e-07", "7.0e-02", "8.0e-01", "77.8"]
    assert list(figures(run)) == row
    assert f"orthogonal {' '.join(row)}" in printed([run])


def test_a_narrow_window_cuts_no_figure(runs):
    lines = printed(runs, width=40)
    assert f"orthogonal {' '.join(figures(runs[0]))}" in lines
    assert not any("\N{HORIZONTAL ELLIPSIS}" in line for line in lines)


# Pictures


def test_pictures_are_readable_and_not_blank(runs, tmp_path):
    for name, figure in pictures.draw_pictures(runs, QUICK).items():
        path = save_figure(figure, tmp_path / name)
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        pixels = image.imread(path)
        assert min(pixels.shape[:2]) > 300
        assert pixels.std() > 0.02


def test_pictures_of_a_diverged_run_are_drawn(runs):
    nothing = replace(
        runs[0].moments[0],
        loss=math.nan,
        spectrum=replace(
            runs[0].moments[0].spectrum,
            eigenvalues=(math.nan,) * 32,
            singular_values=(math.nan,) * 32,
        ),
    )
    diverged = replace(runs[1], moments=(runs[1].moments[0], nothing))
    lost = replace(diverged, after=replace(diverged.after, gradient_norms=(0.0, 0.0)))
    for page in PAGES:
        page([runs[0], lost, runs[2]]).draw_without_rendering()


def test_curves_are_those_of_the_runs(runs):
    loss, accuracy = pictures.training_curves(runs).axes
    for run, line in zip(runs, loss.get_lines(), strict=True):
        assert list(line.get_ydata()) == [moment.loss for moment in run.moments]
        assert line.get_label() == run.kernel.value
    for run, line in zip(runs, accuracy.get_lines(), strict=False):
        assert line.get_ydata()[-1] == 100 * run.accuracy


@pytest.mark.parametrize("draw", [*PAGES, lambda _: pictures.task(QUICK)])
def test_every_axis_has_a_name(draw, runs):
    figure = draw(runs)
    figure.draw_without_rendering()
    for ax in figure.axes:
        shared = (
            ax.get_subplotspec() is not None and not ax.get_subplotspec().is_first_col()
        )
        assert ax.get_ylabel() or shared
        assert ax.get_xlabel() or ax.get_label() == "<colorbar>"


def test_an_image_read_pixel_by_pixel_is_trained_on_and_drawn():
    settings = replace(TINY, steps=64, pixels=1)
    runs = train_all(settings, Log())
    assert len(runs[0].after.gradient_norms) == 64
    for figure in pictures.draw_pictures(runs, settings).values():
        figure.draw_without_rendering()
    (ax, _) = pictures.task(settings).axes
    assert ax.get_title().endswith("pixel by pixel")
    (ax, _) = pictures.task(replace(settings, steps=70)).axes
    assert ax.get_title().endswith("and then noise")


def test_lines_can_be_told_apart_without_colors():
    styles = list(pictures.STYLES.values())
    assert set(pictures.STYLES) == set(Kernel)
    for field in ("color", "dashes", "marker"):
        assert len({getattr(style, field) for style in styles}) == len(styles)


def test_plots_return_the_axes_they_are_given():
    style = plot.LineStyle("black", "-", "o")
    for draw, *arguments in (
        (plot.curve, [0, 1], [1.0, 2.0], style, "a"),
        (plot.reference, 1.0, "one"),
        (plot.span, 1, 8, "image"),
        (plot.sequence, [[0.0] * 8] * 20, 8),
        (plot.eigenvalues, [[1j, -1j], [1.0, -1.0]]),
        (plot.singular_values, [[1.0, 0.5], [1.0, 0.1]], style, "a"),
        (plot.deviations, [[1.0, 0.5], [1.0, 0.1]], style, "a"),
        (plot.gradient_norms, [0.0, 1.0], style, "a"),
    ):
        ax = Figure().subplots()
        assert draw(ax, *arguments) is ax
        assert ax.has_data() or ax.texts


def test_eigenvalues_are_where_they_belong():
    ax = plot.eigenvalues(Figure().subplots(), [[1j, -1j], [0.6 + 0.8j, 2.0]])
    before, all_epochs = ax.collections
    assert before.get_offsets().tolist() == [[0, 1], [0, -1]]
    assert all_epochs.get_offsets().tolist() == [[0, 1], [0, -1], [0.6, 0.8], [2, 0]]
    assert all_epochs.get_array().tolist() == [0, 0, 1, 1]
    (circle,) = ax.get_lines()
    assert {round(math.hypot(x, y), 12) for x, y in circle.get_xydata()} == {1}


def test_deviations_are_the_largest_distance_from_one():
    style = plot.LineStyle("black", "-", "o")
    ax = plot.deviations(Figure().subplots(), [[1.2, 0.9], [1.0, 0.5]], style, "a")
    (line,) = ax.get_lines()
    assert line.get_ydata().tolist() == pytest.approx([0.2, 0.5])

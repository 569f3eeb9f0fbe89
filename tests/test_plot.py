"""Figures: what is drawn is what was given, and everything is labelled."""

from __future__ import annotations

import itertools
import math

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.testing import assert_close

import holdfast
from holdfast import maps, plot
from holdfast.plot.styles import STYLES
from holdfast.reporting.watching import Residual

PAIR = [[0.2, 0.9, 1.6], [0.9, 1.0, 1.1]]
RESIDUALS = [{"a": Residual(1e-7, 1e-5), "b": Residual(1e-3, 1e-5)}] * 2
SINGLE = {
    "curve": lambda ax: plot.curve(ax, [0, 1], [1.0, 2.0]),
    "costs": lambda ax: plot.costs(ax, {"a": 1.0, "b": 2.0}),
    "deviations": lambda ax: plot.deviations(ax, PAIR),
    "eigenvalues": lambda ax: plot.eigenvalues(ax, [[1j, -1j]]),
    "gradient_norms": lambda ax: plot.gradient_norms(ax, [0.0, 1.0]),
    "heat_map": lambda ax: plot.heat_map(ax, torch.eye(3)),
    "reference": lambda ax: plot.reference(ax, 1.0, "one"),
    "residuals": lambda ax: plot.residuals(ax, [0, 50], RESIDUALS),
    "sequence": lambda ax: plot.sequence(ax, [[0.0, 1.0]] * 4, 2),
    "singular_values": lambda ax: plot.singular_values(ax, PAIR),
    "span": lambda ax: plot.span(ax, 1, 2, "image"),
    "spectrum": lambda ax: plot.spectrum(ax, PAIR),
}
PIECES = {"curve", "reference", "sequence", "span"}  # the caller labels these


def axes(columns=1):
    return Figure(layout="constrained").subplots(1, columns)


@pytest.mark.parametrize("name", SINGLE)
def test_axes_come_back_labelled_and_nothing_is_shown(name):
    ax = axes()
    assert SINGLE[name](ax) is ax
    ax.get_figure().canvas.draw()
    assert not plt.get_fignums()
    if name not in PIECES:
        assert ax.get_xlabel()
        assert ax.get_ylabel() or name == "costs"


def test_every_figure_is_in_the_table_above():
    drawn = {*plot.__all__} - {"LineStyle", "style", "before_and_after"}
    assert drawn == {*SINGLE}


@pytest.mark.parametrize("name", ["gradient_norms", "residuals", "spectrum"])
def test_labels_of_the_caller_stay(name):
    ax = axes()
    ax.set(xlabel="mine", ylabel="mine too")
    SINGLE[name](ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mine", "mine too")


def test_styles_differ_without_their_colors():
    assert len({(style.dashes, style.marker) for style in STYLES}) == len(STYLES)
    assert len({style.color for style in STYLES}) == len(STYLES)
    assert len({style.dashes for style in STYLES[:4]}) == 4


def test_a_spectrum_has_median_and_bands():
    ax = plot.spectrum(axes(), PAIR, steps=[0, 100])
    assert ax.lines[0].get_ydata().tolist() == [0.9, 1.0]
    edges = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (0.2, 1.6)


def test_an_orthogonal_spectrum_does_not_magnify_its_roundings():
    ax = plot.spectrum(axes(), [[1 - 1e-7, 1 + 1e-7], [1.0, 1.0]])
    low, high = ax.get_ylim()
    assert high - low >= 0.1
    plainly = plot.spectrum(axes(), [[0.0, 1.0], [0.5, 0.6]])
    assert plainly.get_ylim()[0] > -0.1


def test_residuals_mark_what_is_outside_and_only_that():
    ax = plot.residuals(axes(), [0, 50], RESIDUALS)
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["a"].get_ydata().tolist() == [1e-7, 1e-7]
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert [line.get_ydata().tolist() for line in crosses] == [[1e-3, 1e-3]]
    assert [text.get_text() for text in ax.texts] == ["tolerance 1.0e-05"]


def test_residuals_of_zero_of_nan_and_of_absent_tensors_can_be_drawn():
    history = [
        {"a": Residual(0.0, 1e-5), "b": Residual(math.nan, None)},
        {"a": Residual(1e-6, 1e-5), "c": Residual(1e-7, 2e-5)},
    ]
    ax = plot.residuals(axes(), [0, 1], history)
    ax.get_figure().canvas.draw()
    lines = {line.get_label(): [*line.get_ydata()] for line in ax.lines}
    assert 0 < lines["a"][0] < 1e-8
    assert math.isnan(lines["c"][0])
    assert "b (estimate)" in lines
    assert ax.texts[0].get_text() == "tolerances 1.0e-05 .. 2.0e-05"
    plot.residuals(axes(), [], []).get_figure().canvas.draw()


def test_residuals_that_are_no_numbers_are_marked_at_the_upper_edge():
    lost = {"a": Residual(math.nan, 1e-5)}
    ax = plot.residuals(axes(), [0, 1], [{"a": Residual(1e-7, 1e-5)}, lost])
    ax.get_figure().canvas.draw()
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert [line.get_xydata().tolist() for line in crosses] == [[[1, 1]]]
    assert crosses[0].get_transform() == ax.get_xaxis_transform()
    assert ax.get_ylim()[1] < 1e-4  # not where 1 would be
    nothing_else = plot.residuals(axes(2)[1], [0, 1], [lost, lost])
    nothing_else.get_figure().canvas.draw()
    low, high = nothing_else.get_ylim()
    assert low < 1e-5 < high


def dots(line):
    """Return the points of a line that are drawn as dots."""
    return [] if line.get_marker() == "None" else line.get_markevery()


def test_a_value_between_two_gaps_is_seen():
    one = {"a": Residual(1e-7, 1e-5)}
    for ax in (
        plot.residuals(axes(), [0], [one]),
        plot.gradient_norms(axes(), [1.0]),
        plot.spectrum(axes(), [[0.5, 1.0]]),
    ):
        assert dots(ax.lines[0]) == [0]
    ax = plot.residuals(axes(), [0, 1, 2, 3], [one, {}, one, one])
    assert dots(ax.lines[0]) == [0]  # the others have a line
    assert dots(plot.gradient_norms(axes(), [1.0, 0.0, 1.0, 1.0]).lines[0]) == [0]


def test_a_history_of_nothing_is_an_empty_figure():
    for draw in (plot.eigenvalues, plot.spectrum, plot.deviations):
        ax = draw(axes(), [])
        ax.get_figure().canvas.draw()
        assert ax.get_xlabel()


def test_no_deviation_at_all_is_drawn_below_the_others():
    for history, shown in (
        ([[1.0], [1.5]], [0.05, 0.5]),
        ([[1.0], [1.0]], [1e-8, 1e-8]),
    ):
        ax = plot.deviations(axes(), history)
        ax.get_figure().canvas.draw()
        assert ax.lines[0].get_ydata().tolist() == pytest.approx(shown)


def test_of_many_residuals_the_worst_have_names():
    found = {f"t{i}": Residual(10.0 ** (i - 20), 1e-5) for i in range(12)}
    ax = plot.residuals(axes(), [0, 1], [found, found])
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["t11", "t10", "t9", "t8", "t7", "t6", "others"]


def test_heat_maps_share_one_scale():
    pair = axes(2)
    layer = nn.Conv2d(2, 3, 2)
    plot.before_and_after(pair, layer.weight, 2 * layer.weight)
    largest = float(2 * layer.weight.detach().abs().max())
    for ax in pair:
        assert ax.images[0].get_clim() == (-largest, largest)
        assert ax.images[0].get_array().shape == (3, 8)
    assert len(pair[0].get_figure().axes) == 3


@pytest.mark.parametrize(
    "W",
    [
        torch.ones(4),
        torch.ones(2, 2, dtype=torch.complex64),
        torch.zeros(2, 3),
        torch.empty(0, 3),
        torch.empty(3, 0),
        torch.eye(2, dtype=torch.bool),
    ],
)
def test_heat_maps_take_vectors_complex_tensors_zeros_and_nothing(W):
    plot.heat_map(axes(), W).get_figure().canvas.draw()
    plot.before_and_after(axes(2), W, W)[0].get_figure().canvas.draw()


def test_entries_that_are_not_finite_leave_the_scale_of_the_others():
    W = torch.tensor([[math.nan, -1.0], [2.0, -math.inf]])
    image = plot.heat_map(axes(), W).images[0]
    assert image.get_clim() == (-2, 2)
    blackened = image.cmap(image.norm(image.get_array()))[..., :3].sum(-1) == 0
    assert blackened.tolist() == [[True, False], [False, True]]
    for ax in plot.before_and_after(axes(2), W, torch.eye(2)):
        assert ax.images[0].get_clim() == (-2, 2)


def test_costs_are_those_of_a_report_or_a_trace():
    layer = nn.Linear(8, 8)
    for link in (maps.Skew(), maps.Cayley()):
        holdfast.register_parametrization(layer, "weight", link)
    model = nn.Sequential(layer, holdfast.weight_norm(nn.Linear(8, 8)))
    report, trace = holdfast.report(model), holdfast.trace(layer, "weight")
    ax = plot.costs(axes(), report)
    names = {text.get_text() for text in ax.get_yticklabels()}
    assert names == {"0.weight: Skew, Cayley", "1.weight: WeightNorm"}
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == sorted((t.milliseconds for t in report), reverse=True)
    ax = plot.costs(axes(), trace)
    assert {t.get_text() for t in ax.get_yticklabels()} == {"0: Skew", "1: Cayley"}


@pytest.mark.parametrize("count", [1, 7, 20])
@pytest.mark.parametrize("side", [(6.4, 4.8), (4.0, 3.0)])
def test_the_names_of_costs_stay_in_the_axes_and_off_each_other(count, side):
    figure = Figure(figsize=side)
    ax = figure.subplots()
    names = [f"encoder.layers.{i}.self_attention.out: Weight" for i in range(count)]
    plot.costs(ax, {name: 10.0 ** (3 - i) for i, name in enumerate(names)})
    figure.canvas.draw()
    frame = ax.get_window_extent()
    boxes = [text.get_window_extent() for text in ax.get_yticklabels()]
    assert [t.get_text() for t in ax.get_yticklabels()] == names
    for box in boxes:
        assert frame.x0 <= box.x0
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
    for above, below in itertools.pairwise(boxes):
        assert above.y0 > below.y1
    bars = [bar.get_window_extent() for bar in ax.patches]
    for box, bar in zip(boxes, bars, strict=True):
        assert box.y0 > bar.y1 - 1.5  # pixels


def test_costs_of_nothing_draw_nothing():
    ax = plot.costs(axes(), holdfast.report(nn.Linear(2, 2)))  # warnings are errors
    assert not ax.patches


def test_long_names_of_costs_keep_their_ends():
    block = "a_very_long_name_of_a_block.with_another_one_below"
    taken = {f"{block}.{i}.weight: WeightNorm": 123.4 for i in range(2)}
    ax = plot.costs(axes(), {**taken, "not measured": math.nan})
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert [name[-20:] for name in names] == [
        f".{i}.weight: WeightNorm"[-20:] for i in (0, 1)
    ]
    assert all(name.startswith("a_very") for name in names)
    assert {text.get_text() for text in ax.texts} == {"123"}


def test_a_reference_is_named_above_or_below_its_line():
    for below in (False, True):
        figure = Figure()
        ax = figure.subplots()
        (text,) = plot.reference(ax, 0.5, "guessing", below=below).texts
        figure.canvas.draw()
        box, line = text.get_window_extent(), ax.transData.transform((0, 0.5))[1]
        assert (box.y1 < line) if below else (box.y0 > line)


def test_many_costs_are_summed_up():
    ax = plot.costs(axes(), {f"t{i}": 1.0 for i in range(50)})
    assert len(ax.patches) == 20
    assert ax.get_yticklabels()[-1].get_text() == "31 others"
    assert ax.patches[-1].get_width() == 31


def test_tensors_are_taken_for_the_numbers_in_them():
    history = torch.rand(4, 3, requires_grad=True)
    for draw in (plot.singular_values, plot.spectrum, plot.deviations):
        of_tensors, of_rows = draw(axes(), history), draw(axes(), [*history])
        of_numbers = draw(axes(), history.tolist())
        for ax in (of_tensors, of_rows):
            for line, expected in zip(ax.lines, of_numbers.lines, strict=True):
                assert_close(line.get_ydata(), expected.get_ydata())
    spectra = [torch.linalg.eigvals(torch.rand(3, 3)) for _ in range(2)]
    drawn = plot.eigenvalues(axes(), spectra).collections[-1].get_offsets()
    points = torch.view_as_real(torch.cat(spectra))
    assert_close(torch.tensor(drawn.tolist()), points, rtol=1e-6, atol=1e-6)
    norms = plot.gradient_norms(axes(), [torch.tensor(1.0), 2.0]).lines[0]
    assert [*norms.get_ydata()] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("draw", "given", "message"),
    [
        (plot.singular_values, torch.rand(3), "two dimensions"),
        (plot.spectrum, torch.rand(2, 2, 2), "two dimensions"),
        (plot.singular_values, "abc", "moments"),
        (plot.deviations, [[1.0], [[1.0]]], "sequence of numbers"),
        (plot.gradient_norms, torch.rand(2, 3), "sequence of numbers"),
        (plot.heat_map, [[1.0]], "Expected a tensor"),
        (plot.costs, None, "milliseconds by name"),
        (plot.costs, holdfast.discover(torch.eye(2)), "milliseconds by name"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_refused_with_what_was_expected(draw, given, message):
    with pytest.raises(TypeError, match=message):
        draw(axes(), given)


@pytest.mark.parametrize("W", [torch.eye(2, device="meta"), torch.eye(2).to_sparse()])
def test_a_matrix_without_values_has_no_picture(W):
    with pytest.raises(holdfast.errors.InvalidTensorError, match="dense"):
        plot.heat_map(axes(), W)


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plot.residuals(ax, [0, 50, 100], RESIDUALS),
        lambda ax: plot.residuals(ax, torch.tensor([0.0]), RESIDUALS),
        lambda ax: plot.curve(ax, [0, 1], [0.5]),
        lambda ax: plot.spectrum(ax, [[1.0, 2.0]], steps=[0, 1]),
    ],
)
def test_unequal_lengths_are_refused_and_nothing_is_drawn(draw):
    ax = axes()
    before = ax.get_yscale(), len(ax.get_children())
    with pytest.raises(ValueError, match=r"Expected as many steps as .* Got \d and \d"):
        draw(ax)
    assert (ax.get_yscale(), len(ax.get_children())) == before

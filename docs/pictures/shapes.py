"""Sets that fit into the plane: curves, balls, triangles and ellipses."""

from __future__ import annotations

import math
from itertools import product

import torch
from canvas import (
    BEFORE,
    BLACK,
    FAINT,
    FIRST,
    SECOND,
    THIRD,
    Mark,
    circle,
    legend,
    line,
    normal,
    page,
    points,
    turns,
    values,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matrices import weight
from torch import Tensor

from holdfast import maps, sets


def entrywise() -> Figure:
    """The curves of the maps of single entries."""
    claim = "Each map bends the real line into its bounds"
    figure, axes = page(claim, 3, width=9, height=4.7)
    half, bounded, grid = axes
    x = torch.linspace(-4, 4, 801, dtype=torch.float64)
    for map_, mark in (
        (maps.Softplus(), FIRST),
        (maps.Exponential(), SECOND),
        (maps.Square(), THIRD),
    ):
        line(half, x, map_(x), mark, type(map_).__name__)
    for map_, mark in (
        (maps.Sigmoid(-1.0, 1.0), FIRST),
        (maps.Tanh(-1.0, 1.0), SECOND),
        (maps.Sine(-1.0, 1.0), THIRD),
    ):
        line(bounded, x, map_(x), mark, type(map_).__name__)
    line(grid, x, x, BEFORE, "original")
    line(grid, x, maps.FakeQuantize(3, step=1.0)(x), FIRST, "FakeQuantize(3)")
    half.set(title="above 0", ylim=(-0.4, 5))
    bounded.set(title="between −1 and 1", ylim=(-1.25, 1.25), yticks=(-1, 0, 1))
    grid.set(title="on a grid")
    for ax, bounds in ((half, (0,)), (bounded, (-1, 1)), (grid, ())):
        for bound in bounds:
            ax.axhline(bound, color=FAINT, lw=1)
        ax.set_xlabel("original x")
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
        ax.legend(frameon=False, handlelength=3, **place)
    half.set_ylabel("entry of the weight")
    return figure


def arrows(ax: Axes, X: Tensor, Y: Tensor, mark: Mark, label: str) -> None:
    """Draw where points go."""
    for start, end in zip(X.tolist(), Y.tolist(), strict=True):
        xs, ys = zip(start, end, strict=True)
        ax.plot(xs, ys, mark.dashes, c=mark.color, lw=0.8)
    points(ax, Y, mark, label, 26)


def norms() -> Figure:
    """Balls with where points outside go, and bounds of singular values."""
    claim = "Projecting goes to the nearest point of a ball, clipping along the ray"
    figure, axes = page(claim, 2, 2, height=7.6)
    angles = torch.arange(9) * (2 * math.pi / 9) + 0.3
    radii = torch.tensor([2.4, 1.6, 2.0]).repeat(3)
    X = torch.stack([radii * angles.cos(), radii * angles.sin()], 1).double()
    edge = torch.stack([turns().cos(), turns().sin()], 1)
    for ax, p in zip(axes[:3], (1.0, 2.0, "inf"), strict=True):
        clip = maps.ClipNorm(1.0, p=p)
        ax.fill(*clip(10 * edge).T.tolist(), color=FIRST.color, alpha=0.15, lw=0)
        arrows(ax, X, sets.LpBall(p).project(X), FIRST, "LpBall(p).project")
        arrows(ax, X, clip(X), SECOND, "ClipNorm(1.0, p=p)")
        points(ax, X, Mark(BLACK, "x"), "original", 20)
        title = f"norm at most 1, p = {'∞' if p == 'inf' else int(p)}"
        ax.set(title=title, aspect="equal", xlim=(-2.7, 2.7), ylim=(-2.7, 2.7))
        ax.set(xlabel="first entry", ylabel="second entry")
    legend(figure, axes[0])
    spectrum(axes[3])
    return figure


def spectrum(ax: Axes) -> None:
    """Draw singular values of a matrix before and after."""
    W = normal(16, 16, scale=0.25)
    for X, mark, label in (
        (W, Mark(BLACK, "x", ":"), "original"),
        (weight(maps.BoundedSVD(0.4, high=1.0), W), FIRST, "BoundedSVD(0.4, high=1.0)"),
        (maps.SpectralBound(1.0)(W), SECOND, "SpectralBound(1.0)"),
    ):
        values(ax, torch.linalg.svdvals(X), mark, label)
    ax.axhline(1, color=FAINT, lw=1)
    ax.set(title="singular values between bounds", ylim=(0, None))
    ax.legend(frameon=False, fontsize=9)


CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]], dtype=torch.float64)


def simplex() -> Figure:
    """Where three maps send the same random originals."""
    claim = "Random originals become points inside the triangle of probabilities"
    figure, axes = page(claim, 3, width=9, height=3.3)
    X = normal(250, 3, scale=1.5)
    made = {
        "Softmax()": maps.Softmax()(X),
        "IsometricLogRatio()": maps.IsometricLogRatio()(X[:, :2]),
        "StickBreaking()": maps.StickBreaking()(X[:, :2]),
    }
    for ax, (name, P) in zip(axes, made.items(), strict=True):
        ax.fill(*CORNERS.T.tolist(), fc="none", ec=FAINT, lw=1.2)
        points(ax, P @ CORNERS, FIRST, "row of the weight", 10)
        for corner, text, shift in zip(
            CORNERS.tolist(),
            ("(1, 0, 0)", "(0, 1, 0)", "(0, 0, 1)"),
            ((0, -14), (0, -14), (0, 6)),
            strict=True,
        ):
            style = {"textcoords": "offset points", "ha": "center", "fontsize": 9}
            ax.annotate(text, corner, shift, **style)
        ax.set(title=name, aspect="equal", xlim=(-0.2, 1.2), ylim=(-0.15, 1.02))
        ax.axis("off")
    return figure


def shape(W: Tensor) -> Tensor:
    """Return where symmetric 2 x 2 matrices are in the section of trace 2."""
    trace = W.diagonal(dim1=-2, dim2=-1).sum(-1)
    difference = W[..., 0, 0] - W[..., 1, 1]
    return torch.stack([difference / trace, 2 * W[..., 0, 1] / trace], -1)


def definite() -> Figure:
    """The cone of definite 2 x 2 matrices as ellipses, and weights of four maps."""
    claim = "Definite matrices fill an open cone; its edge is singular"
    figure, (cone, made) = page(claim, 2, width=8.2, height=4.8)
    for x, y in product(torch.linspace(-0.99, 0.99, 7).tolist(), repeat=2):
        if (length := math.hypot(x, y)) < 1:
            semiaxes = [0.28 * math.sqrt((1 + s * length) / 2) for s in (1, -1)]
            turn = math.degrees(math.atan2(y, x) / 2)
            style = {"fc": FIRST.color, "ec": FIRST.color, "alpha": 0.6}
            cone.add_patch(Ellipse((x, y), *semiaxes, angle=turn, **style))
    X, n = normal(150, 2, 2), 150
    bounded = maps.SpectralLogistic(1.0, high=3.0)(maps.Symmetric()(3 * X))
    points(made, shape(maps.Cholesky()(X)), FIRST, "Cholesky()", 12)
    points(made, shape(bounded), THIRD, "SpectralLogistic(1, high=3)", 12)
    points(made, shape(maps.Gram(1)(normal(n, 2, 1))), SECOND, "Gram(1), rank 1", 14)
    cone.set_title("ellipses xᵀW⁻¹x ≤ 1; circle: singular")
    made.set_title("weights of random originals")
    for ax in (cone, made):
        circle(ax)
        ax.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal")
        ax.set(xlabel="(w₁₁ − w₂₂) / trace", ylabel="2 w₁₂ / trace")
    legend(figure, made)
    return figure

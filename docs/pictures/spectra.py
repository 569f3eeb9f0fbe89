"""Eigenvalues, singular values and frequency responses of random weights."""

from __future__ import annotations

import math

import torch
from canvas import (
    BEFORE,
    FAINT,
    FIRST,
    SECOND,
    circle,
    legend,
    line,
    normal,
    page,
    plane,
    points,
    values,
)
from matplotlib.figure import Figure
from torch import Tensor, nn

import holdfast
from holdfast import linalg, maps

TURNS = {"matrix_exp": (maps.MatrixExp, FIRST), "cayley": (maps.Cayley, SECOND)}


def orthogonal() -> Figure:
    """Eigenvalues before and after, and how far the maps turn."""
    claim = "Eigenvalues of orthogonal weights have modulus 1"
    figure, (spectrum, turn) = page(claim, 2, height=4.3)
    X = normal(24, 24, scale=24**-0.5)
    circle(spectrum, label="unit circle")
    points(spectrum, torch.linalg.eigvals(X), BEFORE, "original")
    angles = torch.linspace(0, 3 * math.pi, 200, dtype=torch.float64)
    for name, (kind, mark) in TURNS.items():
        W = kind()(maps.Skew()(X))
        points(spectrum, torch.linalg.eigvals(W), mark, f'"{name}"', size=30)
        W = kind()(angles[:, None, None] * torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        line(turn, angles / math.pi, W[:, 0, 0].acos() / math.pi, mark, f'"{name}"')
    plane(spectrum, 1.3)
    turn.axhline(1, color=FAINT, lw=1)
    turn.set(
        xlabel="size of the skew matrix (π rad)", ylabel="angle of the turn (π rad)"
    )
    turn.set(ylim=(0, 1.1), xlim=(0, 3), title="turning back, or never getting there")
    spectrum.set_title("eigenvalues, 24 x 24")
    legend(figure, spectrum, columns=4)
    return figure


def dynamics() -> Figure:
    """Eigenvalues of twenty random weights, and the bound of each set."""
    claim = "No original leads out of the region of stability"
    figure, axes = page(claim, 3, width=9, height=3.4)
    half, disc, diagonal = axes
    X = normal(20, 12, 12)
    points(half, torch.linalg.eigvals(maps.Lyapunov(0.5)(X)), FIRST, "eigenvalues", 8)
    half.axvline(-0.5, color=FAINT, lw=1.2)
    half.set(title="Lyapunov(0.5)", xlabel="real part", ylabel="imaginary part")
    points(disc, torch.linalg.eigvals(maps.Stein(0.9)(X)), FIRST, "eigenvalues", 8)
    points(diagonal, maps.LRU()(normal(240), normal(240, scale=2)), FIRST, "entries", 8)
    for ax, radius, title in ((disc, 0.9, "Stein(0.9)"), (diagonal, 1.0, "LRU()")):
        circle(ax, radius)
        plane(ax, 1.1)
        ax.set_title(title)
    half.set_box_aspect(1)
    half.text(-0.7, 4.8, "−α", ha="right")
    disc.text(0.68, 0.68, "ρ")
    return figure


def invertible() -> Figure:
    """How a coordinate becomes a pivot, and the singular values of 2 x 2 weights."""
    claim = "Determinants are positive, or 1, for every original"
    figure, (pivot, pairs) = page(claim, 2, height=4.6)
    x = torch.linspace(-30, 30, 301, dtype=torch.float64)
    line(pivot, x, linalg.log_size(x).exp(), FIRST, "exp(arsinh(x/2)), used here")
    line(pivot, x, nn.functional.softplus(x), SECOND, "softplus(x)")
    pivot.set(yscale="log", ylim=(1e-4, 1e2), xlabel="coordinate x")
    pivot.set(ylabel="pivot or singular value")
    for kind, mark in (("positive", FIRST), ("one", SECOND)):
        layer = nn.Linear(2, 2, bias=False, dtype=torch.float64)
        batch = nn.Module()
        batch.weight = nn.Parameter(layer.weight.detach().expand(150, 2, 2).clone())
        map_ = maps.InvertibleSVD(kind)
        holdfast.register_parametrization(batch, "weight", map_)
        for original in batch.parametrizations.weight.parameters():
            original.data.copy_(normal(*original.shape, scale=1.5))
        points(pairs, singular(batch.weight), mark, f'determinant="{kind}"', 14)
    limits = {"xlim": (0.1, 10), "ylim": (0.1, 10)}
    pairs.set(xscale="log", yscale="log", title="weights, 2 x 2", **limits)
    pivot.set_title("from coordinates to factors")
    for ax in (pivot, pairs):
        ax.set_box_aspect(1)
    pairs.set(xlabel="largest singular value", ylabel="smallest singular value")
    legend(figure, pivot, pairs, columns=2)
    return figure


def singular(W: Tensor) -> Tensor:
    return torch.linalg.svdvals(W.detach())


def assigned(map_: nn.Module, W: Tensor) -> nn.Module:
    """Return a layer that is given a weight."""
    layer = nn.Linear(W.shape[1], W.shape[0], bias=False, dtype=W.dtype)
    layer.weight.data.copy_(W)
    return holdfast.register_parametrization(layer, "weight", map_)


def low_rank() -> Figure:
    """Singular values of weights of rank 8, and of changes of a base."""
    claim = "Ranks stay as chosen; LoRA adds to a base, OFT turns it"
    figure, (ranks, changes) = page(claim, 2)
    W = normal(24, 24, scale=24**-0.5) @ torch.logspace(0, -2, 24).double().diag()
    values(ranks, singular(W), BEFORE, "registered weight")
    values(ranks, singular(assigned(maps.LowRank(8), W).weight), FIRST, "LowRank(8)")
    moved = assigned(maps.FixedRank(8), W)
    for original in moved.parametrizations.weight.parameters():
        original.data.add_(normal(*original.shape))
    values(ranks, singular(moved.weight), SECOND, "FixedRank(8), after a step")
    ranks.set(yscale="log", ylim=(1e-20, 1e2), title="weights, 24 x 24")
    base = normal(24, 24, scale=24**-0.5)
    values(changes, singular(base), BEFORE, "base W₀", size=8)
    for name, map_, mark in (
        ("LoRA(2), after a step", maps.LoRA(2), FIRST),
        ("OFT(4), after a step", maps.OFT(4), SECOND),
    ):
        layer = assigned(map_, base)
        for original in layer.parametrizations.weight.parameters():
            original.data.add_(normal(*original.shape, scale=0.5))
        values(changes, singular(layer.weight), mark, name)
    changes.set(ylim=(0, None), title="a base with a change")
    for ax in (ranks, changes):
        ax.legend(frameon=False, fontsize=9)
    return figure


def convolutions() -> Figure:
    """The gain of a convolution at each frequency."""
    claim = "Norm 1 as a matrix may stretch signals, ConvSpectralBound does not"
    figure, (ax,) = page(claim, 1)
    taps, size = 5, 256
    time = torch.arange(taps, dtype=torch.float64)
    K = normal(4, 4, taps, scale=0.2) + 0.35 * torch.exp(-(((time - 2) / 1.5) ** 2))
    matrix = K / torch.linalg.matrix_norm(K.flatten(1), 2)
    bound = maps.ConvSpectralBound(1.0, size=size, padding="circular")
    kernels = {
        "norm 1 as a matrix": (matrix, BEFORE),
        "ConvSpectralBound(1.0) of it": (bound(matrix), FIRST),
        "RKO()": (maps.RKO()(K), SECOND),
    }
    for name, (kernel, mark) in kernels.items():
        response = torch.fft.rfft(kernel, size).movedim(-1, 0)
        gain = torch.linalg.matrix_norm(response, 2)
        line(ax, torch.linspace(0, 1, len(gain)), gain, mark, name)
    ax.axhline(1, color=FAINT, lw=1)
    ax.set(xlabel="frequency (π rad per sample)", ylim=(0, None), xlim=(0, 1))
    ax.set(ylabel="gain: largest singular value")
    ax.legend(frameon=False)
    return figure

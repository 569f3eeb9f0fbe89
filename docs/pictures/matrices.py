"""Matrices in colors: what the maps make of random originals."""

from __future__ import annotations

import torch
from canvas import BLACK, FAINT, FIRST, heat_map, normal, page, scale
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import holdfast
from holdfast import maps


def weight(map_: nn.Module, W: Tensor) -> Tensor:
    """Return what a weight becomes when a map is registered."""
    module = nn.Module()
    module.weight = nn.Parameter(W.clone())
    holdfast.register_parametrization(module, "weight", map_)
    return module.weight.detach()


def linear() -> Figure:
    """One weight of each structure."""
    claim = "Entries that are zero, equal or mirrored: one weight of each structure"
    figure, axes = page(claim, 4, 2, width=8.2, height=4.6)
    W = normal(12, 12)
    kinds = {
        "Symmetric()": maps.Symmetric(),
        "Skew()": maps.Skew(),
        "Triangular()": maps.Triangular(),
        "Banded(lower=2, upper=1)": maps.Banded(lower=2, upper=1),
        "Toeplitz()": maps.Toeplitz(),
        "Circulant()": maps.Circulant(),
        "BlockDiagonal(3)": maps.BlockDiagonal(3),
        "Kronecker((3, 3))": maps.Kronecker((3, 3)),
    }
    for ax, (name, map_) in zip(axes, kinds.items(), strict=True):
        shown = weight(map_, W)
        heat_map(ax, shown / shown.abs().max(), name, 1.0)
    scale(figure, axes[0], axes, "entry / largest")
    return figure


def sparse() -> Figure:
    """Which entries are left of one matrix."""
    claim = "The same matrix, half of its entries left in three patterns"
    figure, axes = page(claim, 4, width=9, height=2.9)
    W = normal(8, 8)
    checkers = torch.arange(8).view(-1, 1) + torch.arange(8)
    shown = {
        "original": W,
        "Mask(checkers)": maps.Mask(checkers % 2 == 0)(W),
        "TopK(32)": maps.TopK(32)(W),
        "NMSparsity(2, 4)": maps.NMSparsity(2, 4)(W),
    }
    for ax, (name, X) in zip(axes, shown.items(), strict=True):
        heat_map(ax, X, name, 2.5)
        for row, column in (X == 0).nonzero().tolist():
            ax.plot(column, row, ".", c=FAINT, ms=3)
    axes[3].axvline(3.5, color=BLACK, lw=1.5)
    axes[0].set_xlabel("column")
    axes[0].set_ylabel("row")
    axes[1].set_xlabel("dots are zeros", color=FAINT)
    axes[3].set_xlabel("groups of 4")
    scale(figure, axes[0], axes, "entry")
    return figure


def beside(ax: Axes, total: Tensor, name: str, *, below: bool) -> None:
    """Draw the sums of rows or columns as bars at the side of a matrix."""
    inset = ax.inset_axes([0, -0.3, 1, 0.26] if below else [1.04, 0, 0.26, 1])
    bars, target = (inset.bar, inset.axhline) if below else (inset.barh, inset.axvline)
    bars(range(len(total)), total.tolist(), color=FIRST.color)
    target(1, color=BLACK, lw=1, ls="--")
    along, ends = (len(total) - 0.5, -0.5), (0, 2.2)
    if below:
        inset.set(xlim=along[::-1], ylim=ends[::-1], xticks=[], yticks=[1], xlabel=name)
    else:
        inset.set(ylim=along, xlim=ends, yticks=[], xticks=[1], ylabel=name)
        inset.yaxis.set_label_position("right")
    inset.tick_params(labelsize=8)
    inset.spines[:].set_visible(False)


def transported(n: int) -> Tensor:
    """Return what `NorthwestCorner` makes of random coordinates."""
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.full((n, n), 1 / n, dtype=torch.float64))
    holdfast.register_parametrization(layer, "weight", maps.NorthwestCorner())
    original = layer.parametrizations.weight.original
    original.data.copy_(normal(*original.shape, scale=1.5))
    return layer.weight.detach()


def stochastic() -> Figure:
    """Row and column sums of three weights."""
    claim = "Softmax fixes the sums of rows; the others those of columns, too"
    figure, axes = page(claim, 3, width=9, height=3.4)
    X = normal(8, 8, scale=2)
    shown = {
        "Softmax(-1)": maps.Softmax(-1)(X),
        "Sinkhorn()": maps.Sinkhorn()(X),
        "NorthwestCorner()": transported(8),
    }
    for ax, (name, P) in zip(axes, shown.items(), strict=True):
        ax.imshow(P.tolist(), cmap="Blues", vmin=0, vmax=1)
        ax.set(title=name, xticks=[], yticks=[])
        beside(ax, P.sum(-2), "sums of columns", below=True)
        beside(ax, P.sum(-1), "sums of rows", below=False)
    figure.colorbar(axes[0].images[0], ax=axes, label="entry", shrink=0.7)
    return figure


def combinators() -> Figure:
    """The four gates of an LSTM, each orthogonal."""
    claim = "PerBlock makes each gate orthogonal, and not the four together"
    figure, (whole, gram) = page(claim, 2, width=7, height=4.4)
    lstm = nn.LSTM(3, 6, dtype=torch.float64)
    gates = maps.PerBlock(maps.Orthogonal(), blocks=4)
    W = holdfast.register_parametrization(lstm, "weight_hh_l0", gates).weight_hh_l0
    W = W.detach()
    heat_map(whole, W, "W = lstm.weight_hh_l0", 1.0)
    heat_map(gram, W @ W.T, "W Wᵀ: identities on the diagonal", 1.0)
    names = ("input", "forget", "cell", "output")
    for ax in (whole, gram):
        ax.set_yticks([2.5, 8.5, 14.5, 20.5], names)
        for edge in (5.5, 11.5, 17.5):
            ax.axhline(edge, color=BLACK, lw=0.8)
    gram.set_xticks([2.5, 8.5, 14.5, 20.5], names)
    for edge in (5.5, 11.5, 17.5):
        gram.axvline(edge, color=BLACK, lw=0.8)
    scale(figure, gram, [whole, gram], "entry")
    return figure

"""Matrices and sequences as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InvalidTensorError, describe
from .styles import MARK

# So many rows or columns are numbered one by one.
_FEW = 5

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def heat_map(ax: Axes, weight: Tensor, *, largest: float | None = None) -> Axes:
    """Draw a matrix: red is positive, blue negative, white zero, black not finite.

    Args:
        ax: where to draw.
        weight: a matrix; of a complex one the magnitudes. A kernel of a convolution is
            drawn with a row for each output channel.
        largest: the absolute value that has the full color; by default the largest of
            those that are finite.

    Example:
        >>> import torch
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> ax = plot.heat_map(Figure().subplots(), torch.eye(3))
        >>> ax.images[0].get_clim(), ax.get_xlabel()
        ((-1.0, 1.0), 'column (input)')
    """
    from matplotlib import colormaps

    W = _matrix(weight)
    size = (_size(W) if largest is None else largest) or 1.0
    colors = colormaps["RdBu_r"].with_extremes(bad="black")
    rows, columns = (max(n, 1) for n in W.shape)  # axes have to have a length
    ax.imshow(
        W.numpy(),
        cmap=colors,
        vmin=-size,
        vmax=size,
        interpolation="nearest",
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
    )
    ax.set(xlabel="column (input)", ylabel="row (output)")
    return _whole(ax)


def before_and_after(
    axes: Sequence[Axes], before: Tensor, after: Tensor
) -> Sequence[Axes]:
    """Draw a weight at two moments, in the same colors, beside one scale for both.

    Args:
        axes: two.
        before: a matrix, as `heat_map` takes it.
        after: the same one later.

    Example:
        >>> import torch
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> axes = Figure(layout="constrained").subplots(1, 2)
        >>> axes = plot.before_and_after(axes, torch.eye(3), 2 * torch.eye(3))
        >>> [ax.images[0].get_clim() for ax in axes]
        [(-2.0, 2.0), (-2.0, 2.0)]
    """
    weights = (before, after)
    largest = max(_size(_matrix(W)) for W in weights)
    for ax, W, title in zip(axes, weights, ("before", "after"), strict=True):
        heat_map(ax, W, largest=largest)
        ax.set_title(title)
        ax.label_outer()
    figure = axes[0].get_figure()
    if figure is not None:
        figure.colorbar(axes[-1].images[0], ax=[*axes], label="entry", shrink=0.8)
    return axes


def sequence(ax: Axes, steps: Sequence[Sequence[float]], signal: int) -> Axes:
    """Draw a sequence with a step per column, and where its signal ends.

    Example:
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> ax = plot.sequence(Figure().subplots(), [[0.0, 1.0]] * 5, signal=2)
        >>> ax.images[0].get_array().shape
        (2, 5)
    """
    columns = list(zip(*steps, strict=True))
    extent = (0.5, len(steps) + 0.5, len(columns) + 0.5, 0.5)
    ax.imshow(columns, cmap="gray_r", extent=extent, aspect="auto")
    ax.axvline(signal + 0.5, color=MARK, lw=2)
    return ax


def _size(W: Tensor) -> float:
    """Return the largest finite magnitude, zero if there is none."""
    finite = W[W.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _matrix(weight: Tensor) -> Tensor:
    if not isinstance(weight, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"Expected a tensor. Got an object of {type(weight).__name__}.")
    if weight.is_meta or weight.layout != torch.strided:
        raise InvalidTensorError(
            f"Expected a dense tensor with values. Got {describe(weight)}, "
            f"{weight.layout}."
        )
    W = weight.detach()
    W = (W.abs() if W.is_complex() else W).to("cpu").double()
    return W.reshape(1, -1) if W.ndim < 2 else W.flatten(1)


def _whole(ax: Axes) -> Axes:
    """Number rows and columns."""
    from matplotlib.ticker import MaxNLocator

    rows, columns = ax.images[0].get_size()
    for axis, size in ((ax.xaxis, columns), (ax.yaxis, rows)):
        if size <= _FEW:
            axis.set_ticks(range(size))
        else:
            axis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    return ax

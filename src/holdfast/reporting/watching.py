"""Residuals of a whole model, cheap enough to be asked during training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import Tensor, nn

from ..core.cache import cached
from ..core.memo import remember
from ..core.sources import ChainSource, undisturbed
from ..errors import UnknownTensorError, did_you_mean
from ..linalg.precision import double
from .measuring import (
    Computed,
    Promise,
    computed_tensors,
    is_pure,
    links_of,
    originals_of,
    promise_of,
    value_of,
    without_a_trace,
    worst_residual,
)


@dataclass(frozen=True)
class Residual:
    """How far a tensor is from its set.

    Attributes:
        value: the largest residual of its matrices; NaN if the tensor is not finite.
        tolerance: up to which it counts as inside; ``None`` where the map only tends to
            its set, and where it declares none.

    Example:
        >>> import holdfast
        >>> holdfast.Residual(1e-7, 1e-5).holds, holdfast.Residual(0.1, 1e-5).holds
        (True, False)
    """

    value: float
    tolerance: float | None

    @property
    def holds(self) -> bool:
        """Whether the residual is a number within the tolerance."""
        limit = float("inf") if self.tolerance is None else self.tolerance
        return self.value <= limit


def residuals(
    model: nn.Module, tensors: str | Iterable[str] = "*", *, estimates: bool = False
) -> dict[str, Residual]:
    """Return how far each parametrized tensor of a model is from its set.

    Each chain is evaluated once, without gradients, and the figures reach the host
    together. Nothing changes: no state, no random numbers, no remembered values. It is
    meant for callbacks; `report` tells more, and takes longer. What is inside of its
    set is mostly told without a decomposition; what is outside, and a product of
    several factors, takes more time than a step of a small model.

    Args:
        model: any module.
        tensors: which ones, by globs on their paths: ``"encoder.*"``.
        estimates: also measure values that only tend to their sets, as the estimate of
            `maps.SpectralNorm` does: each takes a decomposition, and more time than a
            step of training.

    Returns:
        The residuals by the path of the tensor. Left out are tensors without values,
        and, while they are finite, those whose maps declare no set, as torch's own.

    Raises:
        UnknownTensorError: a glob names no parametrized tensor.

    Example:
        >>> import torch, holdfast
        >>> model = torch.nn.Sequential(holdfast.orthogonal(torch.nn.Linear(4, 4)))
        >>> found = holdfast.residuals(model)
        >>> [*found], found["0.weight"].holds
        (['0.weight'], True)

        >>> with torch.no_grad():  # a base that is not orthogonal any more
        ...     _ = model[0].parametrizations.weight[0].base.mul_(2)
        >>> holdfast.residuals(model)["0.weight"].holds
        False
    """
    found = dict[str, tuple[Tensor, float | None]]()
    chosen = list(chosen_tensors(model, tensors))
    # Equal ones are evaluated as one batch, and no value is kept.
    with undisturbed(), remember(False), cached(model):
        for each in chosen:
            try:
                measured = _measured(each, estimates=estimates)
            except Exception as error:
                if all(bool(X.isfinite().all()) for X in originals_of(each.source)):
                    error.add_note(f"while measuring `{each.path}`")
                    raise
                measured = torch.tensor(torch.nan), None  # decompositions refuse NaN
            if measured is not None:
                found[each.path] = measured
    values = _on_the_host([tensor for tensor, _ in found.values()])
    pairs = zip(found.items(), values, strict=True)
    return {path: Residual(value, limit) for (path, (_, limit)), value in pairs}


def chosen_tensors(
    model: nn.Module, tensors: str | Iterable[str]
) -> Iterator[Computed]:
    """Yield the computed tensors whose paths match one of the globs."""
    globs = [tensors] if isinstance(tensors, str) else list(tensors)
    found = list(computed_tensors(model))
    for glob in globs:
        if glob != "*" and not any(fnmatchcase(each.path, glob) for each in found):
            raise UnknownTensorError(
                f"No parametrized tensor of the model is called `{glob}`."
                + did_you_mean(glob, [each.path for each in found])
            )
    for each in found:
        if any(fnmatchcase(each.path, glob) for glob in globs):
            yield each


def _measured(each: Computed, *, estimates: bool) -> tuple[Tensor, float | None] | None:
    links = links_of(each.source)
    promise = promise_of(links[-1] if links else None)
    if not promise.sure and not estimates:
        promise = Promise(None, sure=False)
    if isinstance(each.source, ChainSource) and is_pure(each.source):
        value = cast("Tensor", getattr(each.host, each.source.name))
        worst = worst_residual(promise, value)
    else:
        with without_a_trace(each.source):
            value = value_of(each.source)
            worst = worst_residual(promise, value)
    return None if worst is None else (worst, promise.tolerance(value))


def _on_the_host(scalars: list[Tensor]) -> list[float]:
    """Return scalars as numbers, by one transfer from each device."""
    places = dict[torch.device, list[int]]()
    for i, scalar in enumerate(scalars):
        places.setdefault(scalar.device, []).append(i)
    values = [0.0] * len(scalars)
    for indices in places.values():
        together = torch.stack([double(scalars[i]) for i in indices]).tolist()
        for i, value in zip(indices, together, strict=True):
            values[i] = value
    return values

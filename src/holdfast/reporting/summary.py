"""What is parametrized in a model, and whether it holds: a line for each tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

from torch import nn

from ..core.chain import ParametrizationList
from ..core.sources import ChainSource, Source
from ..model.showing import in_one_line
from ..model.timing import timed
from .measuring import (
    Computed,
    computed_tensors,
    links_of,
    originals_of,
    promise_of,
    singular_values,
    value_of,
    without_a_trace,
    worst_residual,
)
from .tables import Line, Table, compared, short, spelled


@dataclass(frozen=True)
class TensorReport:
    """What a report says of one tensor.

    Attributes:
        tensor: its path.
        maps: the maps that run, as they print.
        made_by: ``"holdfast"``, ``"torch"`` (its own parametrizations) or ``"hook"``
            (its older functions).
        shape: that of the value.
        dtype: that of the value.
        free: how many free parameters it is computed from.
        set: where the last map says that the value lies; empty if it says nothing.
        residual: how far the value is from there, the largest of a batch; NaN for a
            value that is not finite, ``None`` on the meta device or without a set.
        tolerance: up to which residual it counts as inside; ``None`` without a set, and
            where the map only tends to it, as the estimate of `maps.SpectralNorm` does.
        smallest: the smallest singular value, of all matrices of a batch.
        largest: the largest one; both ``None`` where there is no matrix.
        milliseconds: the time of one evaluation, without gradients.
        problem: why it cannot be evaluated; empty if it can.
    """

    tensor: str
    maps: str
    made_by: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    free: int = 0
    set: str = ""
    residual: float | None = None
    tolerance: float | None = None
    smallest: float | None = None
    largest: float | None = None
    milliseconds: float | None = None
    problem: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it: finite, and within the tolerance."""
        if self.residual is None or self.problem:
            return not self.problem
        limit = float("inf") if self.tolerance is None else self.tolerance
        return self.residual <= limit

    @property
    def condition(self) -> float | None:
        """The largest singular value over the smallest, of all matrices of a batch."""
        if self.smallest is None or self.largest is None:
            return None
        return self.largest / self.smallest if self.smallest else float("inf")


@dataclass(frozen=True)
class Report(Table):
    """What is parametrized in a model, and whether it holds.

    Printed, it is a table; so it is in Jupyter. Make one with `report`.

    Attributes:
        tensors: one for each parametrized tensor: its path (``tensor``), ``maps``,
            ``made_by``, ``shape``, ``dtype``, number of ``free`` parameters, ``set``,
            ``residual``, ``tolerance``, ``smallest`` and ``largest`` singular value,
            ``condition``, ``milliseconds``, ``problem``, and whether it ``holds``.

    Example:
        >>> import torch, holdfast
        >>> found = holdfast.report(holdfast.weight_norm(torch.nn.Linear(2, 3)))
        >>> [(each.tensor, each.maps, each.free) for each in found.tensors]
        [('weight', 'WeightNorm()', 9)]
        >>> found.holds, found.violations
        (True, ())
    """

    words = frozenset({"tensor", "maps", "set"})

    tensors: tuple[TensorReport, ...]

    @property
    def violations(self) -> tuple[TensorReport, ...]:
        """Those tensors that are outside their sets, or cannot be evaluated."""
        return tuple(each for each in self.tensors if not each.holds)

    @property
    def holds(self) -> bool:
        """Whether there are no violations."""
        return not self.violations

    def __iter__(self) -> Iterator[TensorReport]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def records(self) -> list[dict[str, object]]:
        """Return a dictionary for each tensor."""
        return [
            {**asdict(each), "condition": each.condition, "holds": each.holds}
            for each in self.tensors
        ]

    def _fields(self) -> list[str]:
        return [*(field.name for field in fields(TensorReport)), "condition", "holds"]

    def head(self) -> tuple[str, ...]:
        """Return what stands above the columns."""
        return (
            "tensor",
            "shape",
            "maps",
            "parameters",
            "set",
            "residual",
            "singular values",
            "ms",
        )

    def lines(self) -> list[Line]:
        """Return a line for each tensor."""
        return [Line(_cells(each), not each.holds) for each in self.tensors]

    def remarks(self) -> list[str]:
        """Return what is wrong, in sentences."""
        if not self.tensors:
            return ["Nothing is parametrized."]
        return [f"! `{each.tensor}` {fault(each)}" for each in self.violations]


def fault(each: TensorReport) -> str:
    """Say what is wrong with a tensor."""
    if each.problem:
        return f"cannot be evaluated: {each.problem}"
    if each.residual is not None and each.residual != each.residual:
        return "is not finite."
    return (
        f"is not in {each.set}: residual {short(each.residual, 2)}, tolerance "
        f"{short(each.tolerance, 2)}."
    )


def report(model: nn.Module, *, spectra: bool = True) -> Report:
    """Look at every parametrized tensor of a model, without changing anything.

    Each chain is evaluated a few times, without gradients: which maps run, on how many
    free parameters, how far the value is from the set that the last map declares, its
    singular values, and the time. State that moves, random numbers and remembered
    values are afterwards what they were. What torch's own parametrizations and its
    older hooks compute is reported too; they declare no sets.

    Args:
        model: any module.
        spectra: compute singular values, which takes seconds for matrices of thousands
            of rows. They are those of the matrices that the set is about, if it is
            about singular values. By other sets, a kernel of a convolution is one
            matrix, with a row for each output channel; leading dimensions of other
            tensors are a batch.

    Returns:
        The report. A tensor whose maps raise an error is in it, with what they say.

    Example:
        >>> import torch, holdfast
        >>> model = torch.nn.Sequential(holdfast.orthogonal(torch.nn.Linear(4, 4)))
        >>> found = holdfast.report(model)
        >>> weight = found.tensors[0]
        >>> weight.tensor, weight.set, weight.residual <= weight.tolerance
        ('0.weight', 'Stiefel()', True)
        >>> round(weight.condition, 4)
        1.0
    """
    return Report(
        tuple(line_of(each, spectra=spectra) for each in computed_tensors(model))
    )


def line_of(each: Computed, *, spectra: bool) -> TensorReport:
    """Return what a report says of one tensor."""
    source = each.source
    known = (each.path, maps_of(source), _maker(source))
    free = sum(original.numel() for original in originals_of(source))
    try:
        with without_a_trace(source):
            return _measured(each, TensorReport(*known, free=free), spectra=spectra)
    except Exception as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        return TensorReport(*known, free=free, problem=problem)


def _measured(each: Computed, known: TensorReport, *, spectra: bool) -> TensorReport:
    links = links_of(each.source)
    promise = promise_of(links[-1] if links else None)
    device = originals_of(each.source)[0].device
    value, milliseconds = timed(lambda: value_of(each.source), device)
    worst = worst_residual(promise, value)
    spectrum = singular_values(value, each.host, promise.set) if spectra else None
    return TensorReport(
        known.tensor,
        known.maps,
        known.made_by,
        tuple(value.shape),
        str(value.dtype).removeprefix("torch."),
        known.free,
        "" if promise.set is None else str(promise.set),
        None if worst is None else float(worst),
        promise.tolerance(value),
        None if spectrum is None else float(spectrum.min()),
        None if spectrum is None else float(spectrum.max()),
        None if value.is_meta else milliseconds,
    )


def maps_of(source: Source) -> str:
    """Return the maps that run, as they print, and those that are disabled."""
    if not isinstance(source, ChainSource):
        return type(source.hook).__name__
    running, maps = links_of(source), source.chain._modules.values()
    return ", ".join(
        in_one_line([map_])
        + ("" if any(map_ is each for each in running) else " (disabled)")
        for map_ in maps
    )


def _maker(source: Source) -> str:
    if not isinstance(source, ChainSource):
        return "hook"
    return "holdfast" if isinstance(source.chain, ParametrizationList) else "torch"


def _cells(each: TensorReport) -> tuple[str, ...]:
    entries = 1
    for size in each.shape:
        entries *= size
    changed = "" if each.free == entries or each.problem else f"{entries:,} <- "
    spectrum = ""
    if each.smallest is not None and each.largest is not None:
        spectrum = f"{each.smallest:.4g} .. {each.largest:.4g}"
    return (
        each.tensor,
        "" if each.problem else spelled(each.shape),
        each.maps,
        f"{changed}{each.free:,}",
        each.set,
        "" if each.set == "Real()" else compared(each.residual, each.tolerance),
        spectrum,
        short(each.milliseconds, 2),
    )

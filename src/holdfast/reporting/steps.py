"""One evaluation of a chain, map by map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial

import torch
from torch import Tensor, nn

from ..core.calling import call
from ..core.checks import check_type
from ..core.sources import ChainSource, Source, sources_of
from ..errors import UnknownTensorError, did_you_mean
from ..linalg.precision import double
from ..model.showing import in_one_line
from ..model.timing import timed
from .measuring import (
    Promise,
    computed_tensors,
    links_of,
    originals_of,
    promise_of,
    singular_values,
    without_a_trace,
    worst_residual,
)
from .tables import Line, Table, compared, short, spelled

_NOTHING_SAID = Promise(None, sure=False)


@dataclass(frozen=True)
class TraceStep:
    """A tensor on the way from the originals to the weight.

    Attributes:
        step: ``"original"``, or the number of a map and how it prints.
        shape: that of the tensor; as all that follows, empty for what is no tensor.
        dtype: its type.
        min: the smallest entry; of a complex tensor the smallest magnitude.
        max: the largest.
        mean: the mean; of a complex tensor that of the magnitudes.
        std: the standard deviation, over all entries; likewise.
        norm: the square root of the sum of squares. All five are ``None`` on the meta
            device and for tensors without entries.
        singular_values: of all matrices of a batch, the largest first; ``None`` where
            there is no matrix.
        set: where the map says that its value lies; empty if it says nothing.
        residual: how far the value is from there; see `TensorReport`.
        tolerance: up to which residual it counts as inside.
        milliseconds: the time of the map, without gradients.
        error: what the map raised when it met NaN or infinity; then nothing follows.
    """

    step: str
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    norm: float | None = None
    singular_values: tuple[float, ...] | None = None
    set: str = ""
    residual: float | None = None
    tolerance: float | None = None
    milliseconds: float | None = None
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it: finite, and within the tolerance."""
        if self.error:
            return False
        limit = float("inf") if self.tolerance is None else self.tolerance
        return self.residual is None or self.residual <= limit


@dataclass(frozen=True)
class Trace(Table):
    """One evaluation of a chain: the originals, then the value of every map.

    Printed, it is a table; so it is in Jupyter. Make one with `trace`.

    Attributes:
        tensor: the path of the tensor.
        steps: the originals and the values, in order: what they are (``step``),
            ``shape``, ``dtype``, ``min``, ``max``, ``mean``, ``std``, ``norm``,
            ``singular_values``, ``set``, ``residual``, ``tolerance``,
            ``milliseconds``, ``error``, and whether it ``holds``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(3, 3)
        >>> for map_ in (maps.Skew(), maps.Cayley()):
        ...     _ = holdfast.register_parametrization(layer, "weight", map_)
        >>> [step.step for step in holdfast.trace(layer, "weight").steps]
        ['original', '0: Skew()', '1: Cayley()']
    """

    words = frozenset({"step", "set"})

    tensor: str
    steps: tuple[TraceStep, ...]

    def __iter__(self) -> Iterator[TraceStep]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def records(self) -> list[dict[str, object]]:
        """Return a dictionary for each step."""
        return [
            {"tensor": self.tensor, **asdict(step), "holds": step.holds}
            for step in self.steps
        ]

    def _fields(self) -> list[str]:
        return ["tensor", *(field.name for field in fields(TraceStep)), "holds"]

    def head(self) -> tuple[str, ...]:
        """Return what stands above the columns."""
        statistics = ("min", "max", "mean", "std", "norm")
        return (
            "step",
            "shape",
            *statistics,
            "singular values",
            "set",
            "residual",
            "ms",
        )

    def lines(self) -> list[Line]:
        """Return a line for each step."""
        return [Line(_cells(step), not step.holds) for step in self.steps]

    def remarks(self) -> list[str]:
        """Return which steps miss their sets."""
        return [
            f"! `{step.step}` {_fault(step)}." for step in self.steps if not step.holds
        ]


def trace(module: nn.Module, name: str) -> Trace:
    """Evaluate a chain once, and keep what each of its maps makes of its input.

    It changes nothing, as `report`; disabled maps are left out, because they do not
    run. Of torch's old hooks only originals and value are known.

    Args:
        module: a parametrized module, or any module above it.
        name: the tensor, ``"weight"``, or its path from there, ``"encoder.0.weight"``.

    Raises:
        UnknownTensorError: there is no parametrized tensor of that name.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(3, 3)
        >>> for map_ in (maps.Skew(), maps.Cayley()):
        ...     _ = holdfast.register_parametrization(layer, "weight", map_)
        >>> *_, last = holdfast.trace(layer, "weight").steps
        >>> last.set, [round(s, 4) for s in last.singular_values]
        ('Stiefel()', [1.0, 1.0, 1.0])
    """
    check_type(name, str, "trace", "the name of a tensor")
    known = dict[str, tuple[nn.Module, Source]]()
    for path, host, source in computed_tensors(module):
        known[path] = host, source
    known |= _under_another_name(module, name)
    if name not in known:
        raise UnknownTensorError(
            f"`{type(module).__name__}` has no parametrized tensor `{name}`."
            + did_you_mean(name, known)
        )
    host, source = known[name]
    with without_a_trace(source):
        return Trace(name, tuple(_steps(host, source)))


def _under_another_name(
    module: nn.Module, path: str
) -> dict[str, tuple[nn.Module, Source]]:
    """Return the tensor of a module that stands in several places, if it is one."""
    prefix, _, name = path.rpartition(".")
    try:
        host = module.get_submodule(prefix)
    except AttributeError:
        return {}
    found = [each for each in sources_of(host) if each.name == name]
    return {path: (host, found[0])} if found else {}


def _steps(host: nn.Module, source: Source) -> Iterator[TraceStep]:
    originals = originals_of(source)
    for i, original in enumerate(originals):
        number = "" if len(originals) == 1 else str(i)
        yield _step(host, f"original{number}", original.detach(), _NOTHING_SAID)
    device = originals[0].device
    if not isinstance(source, ChainSource):
        value, milliseconds = timed(source.value, device)
        label = type(source.hook).__name__
        yield _step(host, label, value, _NOTHING_SAID, milliseconds)
        return
    running, values = links_of(source), originals
    for number, map_ in source.chain._modules.items():
        if any(map_ is each for each in running):
            label = f"{number}: {in_one_line([map_])}"
            try:
                value, milliseconds = timed(partial(call, map_, values), device)
            except Exception as error:
                if all(map(_is_finite, values)):
                    raise
                kind = type(error).__name__.lstrip("_")
                yield TraceStep(label, error=f"{kind}: {error}")
                return
            yield _step(host, label, value, promise_of(map_), milliseconds)
            values = (value,)


def _is_finite(value: Tensor) -> bool:
    return value.is_meta or bool(value.isfinite().all())


def _fault(step: TraceStep) -> str:
    """Return what is wrong with a step."""
    if step.error:
        return f"met NaN or infinity, and raised {step.error.partition(':')[0]}"
    return f"misses {step.set or 'the finite numbers'}"


def _step(
    host: nn.Module,
    label: str,
    value: object,
    promise: Promise,
    milliseconds: float | None = None,
) -> TraceStep:
    if not isinstance(value, Tensor):
        return TraceStep(label, milliseconds=milliseconds)
    worst = worst_residual(promise, value)
    spectrum = singular_values(value, host, promise.set)
    return TraceStep(
        label,
        shape=tuple(value.shape),
        dtype=str(value.dtype).removeprefix("torch."),
        **_statistics(value),
        singular_values=None if spectrum is None else _descending(spectrum),
        set="" if promise.set is None else str(promise.set),
        residual=None if worst is None else float(worst),
        tolerance=promise.tolerance(value),
        milliseconds=None if value.is_meta else milliseconds,
        error="",
    )


def _statistics(value: Tensor) -> dict[str, float]:
    """Return minimum, maximum, mean, standard deviation and norm, if there are any."""
    if value.is_meta or not value.numel():
        return {}
    x = double(value)
    norm = torch.linalg.vector_norm(x)
    size = x.abs() if x.is_complex() else x
    found = (size.min(), size.max(), size.mean(), size.std(correction=0), norm)
    names = ("min", "max", "mean", "std", "norm")
    return dict(zip(names, torch.stack(found).tolist(), strict=True))


def _descending(spectrum: Tensor) -> tuple[float, ...]:
    return tuple(spectrum.flatten().sort(descending=True).values.tolist())


def _cells(step: TraceStep) -> tuple[str, ...]:
    spectrum = step.singular_values
    return (
        step.step,
        "" if step.shape is None else spelled(step.shape),
        *map(short, (step.min, step.max, step.mean, step.std, step.norm)),
        f"{spectrum[-1]:.4g} .. {spectrum[0]:.4g}" if spectrum else "",
        step.set,
        "" if step.set == "Real()" else compared(step.residual, step.tolerance),
        short(step.milliseconds, 2),
    )

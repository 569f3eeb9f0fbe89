"""Looking at computed tensors so that nothing changes by it.

Note [Without a trace]
    A value is computed by the chain itself, not by reading ``module.weight``, so that
    no scope and no memo keeps it, or loses what it has. Maps that do not promise to
    depend on their tensors alone may draw random numbers or move state: generators and
    state are put back afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .. import sets
from ..core.calling import is_unhooked
from ..core.chain import ParametrizationList
from ..core.classes import is_parametrized
from ..core.parametrization import Parametrization
from ..core.sharing import parts_of
from ..core.sources import ChainSource, Source, sources_of, undisturbed
from ..core.transaction import Snapshot
from ..linalg import decompositions
from ..linalg.certificates import finite
from ..linalg.matricization import matricize
from ..linalg.precision import double
from ..linalg.tolerances import tolerance
from ..sets.constraint import Constraint


class Computed(NamedTuple):
    """A tensor that is computed: where it is, and what computes it."""

    path: str
    host: nn.Module
    source: Source


def computed_tensors(model: nn.Module) -> Iterator[Computed]:
    """Yield every computed tensor of a model, under the first of its names."""
    # A state dict, say, has no maps to look at.
    if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"Expected a module. Got an object of {type(model).__name__}.")
    seen = set[int]()
    for prefix, module in _hosts(model, "", set()):
        for source in sources_of(module):
            if source.key not in seen:
                seen.add(source.key)
                path = f"{prefix}.{source.name}" if prefix else source.name
                yield Computed(path, module, source)


def _hosts(
    module: nn.Module, prefix: str, seen: set[int]
) -> Iterator[tuple[str, nn.Module]]:
    """Yield all modules that are no part of a chain.

    `nn.Module.named_modules` would pass through the chains, which takes the memo of
    their values for out of date.
    """
    seen.add(id(module))
    yield prefix, module
    for name, below in module._modules.items():
        of_chains = name == "parametrizations" and is_parametrized(module)
        if below is not None and id(below) not in seen and not of_chains:
            yield from _hosts(below, f"{prefix}.{name}" if prefix else name, seen)


def links_of(source: Source) -> list[nn.Module]:
    """Return the maps that run, in order; torch's old hooks have none."""
    if not isinstance(source, ChainSource):
        return []
    if isinstance(source.chain, ParametrizationList):
        return source.chain.links()
    return [*source.chain._modules.values()]


def originals_of(source: Source) -> tuple[Tensor, ...]:
    """Return the free tensors, in the order in which the first map takes them."""
    if isinstance(source, ChainSource) and isinstance(
        source.chain, ParametrizationList
    ):
        return source.chain.originals()
    return (*source.originals(),)


def value_of(source: Source) -> Tensor:
    """Compute a value; see `without_a_trace`."""
    if not isinstance(source, ChainSource):
        return source.value()
    chain = source.chain
    if isinstance(chain, ParametrizationList) and is_unhooked(chain):
        return chain.evaluate()
    return chain()


@contextlib.contextmanager
def without_a_trace(source: Source) -> Generator[None]:
    """Compute apart from autograd and autocast, and put back what moved."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(undisturbed())
        if not is_pure(source):
            for kind, devices in _generators(source).items():
                stack.enter_context(
                    torch.random.fork_rng(devices, device_type=kind)
                    if kind != "cpu"
                    else torch.random.fork_rng(devices=[])
                )
            state = Snapshot(source.guarded())
            stack.enter_context(state)
            stack.callback(state.restore)
        yield


def is_pure(source: Source) -> bool:
    """Tell whether evaluating is sure to change nothing."""
    if not isinstance(source, ChainSource):
        return True
    chain = source.chain
    if not isinstance(chain, ParametrizationList):
        return False
    parts = [part for map_ in chain._modules.values() for part in parts_of(map_)]
    return all(map(is_unhooked, (chain, *parts))) and all(
        isinstance(part, Parametrization) and part.deterministic for part in parts
    )


def _generators(source: Source) -> dict[str, list[int]]:
    """Return the devices whose random numbers may be drawn."""
    found: dict[str, list[int]] = {"cpu": []}
    for tensor in source.originals():
        if tensor.device.type not in ("cpu", "meta"):
            indices = found.setdefault(tensor.device.type, [])
            if tensor.device.index not in indices:
                indices.append(tensor.device.index or 0)
    return found


class Promise(NamedTuple):
    """What the last map of a chain says of the value.

    Attributes:
        set: where the value is to lie; ``None`` if nothing is said.
        sure: it lies there to rounding, and does not only tend to it, as the estimate
            of a spectral norm does.
    """

    set: Constraint | None
    sure: bool

    def tolerance(self, value: Tensor) -> float | None:
        """Return the residual up to which the value counts as inside the set."""
        return tolerance(value) if self.set is not None and self.sure else None


def promise_of(map_: nn.Module | None) -> Promise:
    """Return what a map says of its values."""
    if not isinstance(map_, Parametrization):
        return Promise(None, sure=False)
    buffers = [b for part in parts_of(map_) for b in part._buffers.values()]
    estimated = map_.moves and any(buffer is not None for buffer in buffers)
    return Promise(map_.codomain, sure=not estimated)


def worst_residual(promise: Promise, value: Tensor) -> Tensor | None:
    """Return the largest residual of a batch as a scalar that stays on its device.

    It is NaN for a value that is not finite, whatever the set says, and ``None`` where
    there is nothing to tell: no values, or no set.
    """
    if value.is_meta:
        return None
    missing = torch.tensor(torch.nan, device=value.device)
    known = finite(value)
    if promise.set is None:
        return None if bool(known) else missing
    try:
        found = promise.set.residual(value)
    except Exception:
        if bool(known):
            raise
        return missing  # decompositions refuse such values
    largest = found.amax() if found.numel() else torch.zeros((), device=value.device)
    return torch.where(known, largest, missing)


def singular_values(
    value: Tensor, host: nn.Module | None = None, set: Constraint | None = None
) -> Tensor | None:
    """Return the singular values of a matrix or a batch, largest first.

    A set that is about singular values tells of which matrices. By any other one, a
    kernel of a convolution is one matrix, with a row for each output channel. There are
    none of vectors, of empty matrices and of values that are not finite.
    """
    if value.ndim < 2 or value.is_meta or not value.numel():
        return None
    W = _matrices(double(value), host, set)
    return decompositions.singular_values(W) if bool(torch.isfinite(W).all()) else None


def tells_matrices(set: Constraint | None) -> bool:
    """Tell whether a set says of which matrices the singular values are meant."""
    if isinstance(set, sets.Matricized):
        return tells_matrices(set.set)
    return isinstance(set, (*_OF_SPECTRA, sets.OrthogonalKernels))


def _matrices(W: Tensor, host: nn.Module | None, set: Constraint | None) -> Tensor:
    """Return the matrices that singular values are meant of."""
    if isinstance(set, sets.Matricized):
        return _matrices(matricize(W, set.rows), None, set.set)
    if isinstance(set, sets.OrthogonalKernels):
        return set.matrices(W)
    axis = 1 if isinstance(host, _ConvTransposeNd) else 0
    if isinstance(set, _WITH_AXIS) and set.axis is not None:
        axis = set.axis
    elif isinstance(set, _OF_SPECTRA) or W.ndim == 2 or not isinstance(host, _ConvNd):
        return W
    return W.movedim(axis, 0).flatten(1)


# Sets about the spectrum of each matrix, which are in the last two dimensions, or of
# the one that an axis gives.
_WITH_AXIS = sets.SpectralBall, sets.SpectralSphere
_OF_SPECTRA = (
    *_WITH_AXIS,
    sets.Stiefel,
    sets.Grassmann,
    sets.ScaledOrthogonal,
    sets.Orthogonal,
    sets.SpecialOrthogonal,
    sets.Unitary,
    sets.SpecialUnitary,
    sets.SingularValuesIn,
    sets.LowRankMatrices,
    sets.FixedRankMatrices,
    sets.GeneralLinear,
    sets.PositiveDeterminant,
    sets.SpecialLinear,
)

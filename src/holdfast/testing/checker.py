"""All laws over one chain of maps, with a verdict that can be read."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch

from ..core.parametrization import Parametrization
from ..errors import (
    HoldfastError,
    InvalidTensorError,
    LawError,
    NotInSetError,
    UnknownLawError,
    did_you_mean,
)
from ..sets.constraint import Constraint
from .case import Case, Shape, missing_inverse
from .derivative_laws import DERIVATIVE_LAWS
from .given import AroundGiven, around_given
from .law import Law, NotApplicable
from .module_laws import MODULE_LAWS
from .robustness_laws import ROBUSTNESS_LAWS
from .value_laws import VALUE_LAWS

LAWS: tuple[Law, ...] = (
    *VALUE_LAWS,
    *ROBUSTNESS_LAWS,
    *DERIVATIVE_LAWS,
    *MODULE_LAWS,
)

Status = Literal["pass", "FAIL", "exempt", "not applicable"]

# What the laws that need a right inverse are called.
_BACKWARD = ("right_inverse", "registering")

_LONGEST = 240


@dataclass(frozen=True)
class Outcome:
    """What became of one law: its name, a status, and a line on why.

    Example:
        >>> from holdfast.testing import Outcome
        >>> print(Outcome("batch", "exempt", "the tensor is one matrix"))
        batch              exempt          the tensor is one matrix
    """

    law: str
    status: Status
    note: str = ""

    def __str__(self) -> str:
        return f"{self.law:18} {self.status:15} {self.note}".rstrip()


@dataclass(frozen=True)
class Verdict:
    """What became of every law; as a string, a table.

    Attributes:
        title: which maps were checked, and on what.
        outcomes: one for each law.

    Example:
        >>> from holdfast.testing import Outcome, Verdict
        >>> verdict = Verdict("Mine", (Outcome("image", "pass"),))
        >>> verdict.failed
        ()
        >>> print(verdict)
        Mine
        image              pass
    """

    title: str
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the laws that are broken."""
        return tuple(o.law for o in self.outcomes if o.status == "FAIL")

    def __str__(self) -> str:
        return "\n".join((self.title, *map(str, self.outcomes)))


def check_parametrization(
    map: Parametrization | Sequence[Parametrization],
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float64,
    codomain: Constraint | None = None,
    exempt: Mapping[str, str] | Iterable[str] = (),
) -> Verdict:
    """Check a map of your own by the laws that every map of holdfast keeps.

    Each law works on a copy, and leaves random numbers, modes and what torch has
    compiled as they were. Shapes of a few entries are quick, and tell as much as large
    ones.

    Args:
        map: a map, or several in the order of their registration. They may not have
            been registered yet.
        shape: of the weight.
        dtype: of the weight. Derivatives are checked in double precision, autocast in
            single, and half types in any case.
        codomain: the set that the chain lands in; by default that of the last map.
        exempt: names of laws that are not to hold, best with the reasons.

    Returns:
        What became of each law.

    Raises:
        LawError: a law is broken. The message is the table.
        UnknownLawError: there is no law of a name in ``exempt``.
        InvalidTensorError: something is no `Parametrization`, or the maps or their
            set refuse tensors of this shape or type.
        NotInSetError: the first map takes special tensors only, such as skew ones.

    Example:
        >>> from holdfast import maps, sets
        >>> from holdfast.testing import check_parametrization
        >>> chain = [maps.Skew(), maps.Cayley()]
        >>> exempt = {"compile": "slow", "huge": "of I + 1e18 A rounding leaves no I"}
        >>> verdict = check_parametrization(chain, (3, 3), exempt=exempt)
        >>> [outcome.law for outcome in verdict.outcomes if outcome.status != "pass"]
        ['huge', 'compile']
    """
    chain = [map] if isinstance(map, Parametrization) else [*map]
    shape = tuple(shape)
    _check_arguments(chain, shape)
    exemptions = _exemptions(exempt)
    title = " -> ".join(type(link).__name__ for link in chain)
    chain = [around_given(link, shape) for link in chain]

    def lands_in(shape: Shape) -> Constraint:
        last = copy.deepcopy(chain[-1])
        if isinstance(last, AroundGiven):
            last.bind(torch.empty(shape, dtype=torch.float64))
        return last.codomain if codomain is None else codomain

    case = Case(
        title,
        lambda _: copy.deepcopy(chain),
        lands_in,
        (shape,),
        exceptions=exemptions,
    )
    outcomes = _outcomes(case, shape, dtype)
    verdict = Verdict(f"{case} on {shape}, {dtype}", tuple(outcomes))
    if verdict.failed:
        raise LawError(str(verdict))
    return verdict


def _check_arguments(chain: list[Parametrization], shape: Shape) -> None:
    for link in chain:
        if not isinstance(link, Parametrization):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidTensorError(
                f"Expected a map that derives from `holdfast.Parametrization`, which "
                f"declares its codomain. Got {type(link).__name__}."
            )
    if not chain:
        raise InvalidTensorError("Expected at least one map. Got none.")
    domain = chain[0].domain
    if domain.dim(shape) < torch.Size(shape).numel():
        raise NotInSetError(
            f"`{type(chain[0]).__name__}` takes {domain}, and free tensors are to be "
            "tried. Pass it after the map that leads there, as a list of both."
        )


def _exemptions(exempt: Mapping[str, str] | Iterable[str]) -> dict[str, str]:
    if isinstance(exempt, str):
        exempt = (exempt,)
    reasons = exempt if isinstance(exempt, Mapping) else dict.fromkeys(exempt, "")
    known = [law.name for law in LAWS]
    for name in reasons:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UnknownLawError(f"There is no law `{name}` to be exempt from.{hint}")
    return dict(reasons)


def _outcomes(case: Case, shape: Shape, dtype: torch.dtype) -> Iterable[Outcome]:
    exempt = dict(case.exceptions)
    missing = _missing_inverse(case, shape, dtype)
    reason = f"`{missing}` has no right inverse"
    if missing:
        _refuse_several(case.make(shape)[0], reason)
        case = replace(case, exceptions={**exempt, "right_inverse": reason})
    for law in LAWS:
        if law.name in exempt:
            yield Outcome(law.name, "exempt", exempt[law.name])
        elif missing and law.name in _BACKWARD:
            yield Outcome(law.name, "not applicable", reason)
        else:
            yield _outcome(law, case, shape, dtype)


def _refuse_several(link: Parametrization, reason: str) -> None:
    """Refuse a map of several tensors where the weight itself becomes the original."""
    needed = [
        p
        for p in inspect.signature(link.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        and p.default is p.empty
    ]
    if len(needed) > 1:
        raise InvalidTensorError(
            f"`{type(link).__name__}` takes {len(needed)} tensors, and {reason}, so a "
            "registration has nothing to make them of. Write a `right_inverse` that "
            "returns them; it may be an approximation."
        )


def _missing_inverse(case: Case, shape: Shape, dtype: torch.dtype) -> str:
    """Return the name of a map without a right inverse, if one says so."""
    try:
        with _undisturbed():
            chain = case.bound(shape, dtype)
            return missing_inverse(chain, case.sample(shape, dtype))
    except InvalidTensorError:
        raise  # the maps, or their set, have no such tensors
    except Exception:
        return ""  # the laws will tell


def _outcome(law: Law, case: Case, shape: Shape, dtype: torch.dtype) -> Outcome:
    try:
        with _undisturbed():
            law(case, shape, dtype)
    except NotApplicable as reason:
        return Outcome(law.name, "not applicable", _line(str(reason)))
    except LawError as error:
        return _failure(law, f"{_line(str(error))}. {law.remedy}")
    except HoldfastError as error:  # which names a way out itself
        return _failure(law, f"{type(error).__name__}: {error}")
    except Exception as error:
        found = _line(f"{type(error).__name__}: {error}")
        return _failure(law, f"{found}. {law.remedy}")
    return Outcome(law.name, "pass")


def _failure(law: Law, found: str) -> Outcome:
    return Outcome(
        law.name, "FAIL", f"Expected {law.claim}. Found {' '.join(found.split())}"
    )


def _line(text: str) -> str:
    """Return a text in one line that is not too long to be read."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


@contextmanager
def _undisturbed() -> Generator[None]:
    """Run a law with numbers and modes of its own, and put back what was there."""
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # torch's own, about its internals
        torch.default_generator.manual_seed(0)
        yield

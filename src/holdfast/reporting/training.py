"""Watching the weights of a model while it trains, in any training loop."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from torch import nn

from ..errors import ConstraintLostError
from .measuring import (
    links_of,
    promise_of,
    singular_values,
    value_of,
    without_a_trace,
)
from .watching import Residual, chosen_tensors, residuals

EVERY = 50
SHARE = 0.02
LOST_ELSEWHERE = "A constraint was lost in another process."

Log: TypeAlias = Callable[[str, float, int], object]
"""What takes a figure: its name, its value, and the step."""


class Watch:
    r"""Log residuals and spectra while a model trains, and tell when one is lost.

    A constraint is lost when a residual is above its tolerance, or a weight is not
    finite. Looking changes neither the model nor the training: no state moves, no
    random numbers are drawn, no remembered value is dropped.

    The figures are ``residual/PATH``, and of matrices ``largest_singular_value/PATH``,
    ``smallest_singular_value/PATH`` and ``condition/PATH``: the extremes of a batch,
    and the largest condition number. ``log`` is any function of name, value and step;
    ``add_scalar`` of TensorBoard's ``SummaryWriter`` is one.

    Args:
        model: the model.
        log: what takes the figures; without it they are only judged.
        every: the number of steps from one look at the residuals to the next; ``None``:
            50, in a ``share`` of 0.02 if no other is given.
        spectra_every: the same for the singular values, which cost more; 0: never.
        tensors: which ones, by globs on their paths: ``"encoder.*"``.
        lost: what happens when a constraint is lost: ``"warn"`` once, and again if it
            has held in between; ``"stop"`` raises.
        estimates: also measure what only tends to its set; see `residuals`.
        share: the largest share of the time that looking may take: with 0.02, after a
            look of one second those of the next 50 seconds are left out. The first look
            does not count. ``None`` looks at every multiple: the residuals of
            orthogonal weights cost about half a training step, those of a
            decomposition several.

    Raises:
        ValueError: a number is too small, or ``lost`` is neither of the two.
        UnknownTensorError: a glob names no parametrized tensor.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.orthogonal(torch.nn.Linear(4, 4))
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> def log(name, value, step):
        ...     print(step, name, value < 1e-6 or round(value, 3))
        >>> watch = holdfast.Watch(layer, log, every=2, spectra_every=4, lost="stop")
        >>> for step in range(1, 5):
        ...     layer(torch.ones(1, 4)).sum().backward()
        ...     optimizer.step()
        ...     watch.after_step(step)
        1 residual/weight True
        1 largest_singular_value/weight 1.0
        1 smallest_singular_value/weight 1.0
        1 condition/weight 1.0
        2 residual/weight True
        4 residual/weight True
        4 largest_singular_value/weight 1.0
        4 smallest_singular_value/weight 1.0
        4 condition/weight 1.0
    """

    def __init__(
        self,
        model: nn.Module,
        log: Log | None = None,
        *,
        every: int | None = None,
        spectra_every: int = 500,
        tensors: str | Iterable[str] = "*",
        lost: Literal["warn", "stop"] = "warn",
        estimates: bool = False,
        share: float | None = None,
    ) -> None:
        if every is None:
            every, share = EVERY, SHARE if share is None else share
        if share is not None and not 0 < share <= 1:
            raise ValueError(f"Expected `share` to be in (0, 1], or None. Got {share}.")
        for name, number, least in (
            ("every", every, 1),
            ("spectra_every", spectra_every, 0),
        ):
            if number < least:
                raise ValueError(
                    f"Expected `{name}` to be at least {least}. Got {number}."
                )
        if lost not in ("warn", "stop"):
            raise ValueError(f"Expected `lost` to be 'warn' or 'stop'. Got {lost!r}.")
        self.model, self.log, self.lost = model, log, lost
        self.every, self.spectra_every = every, spectra_every
        self.tensors = (tensors,) if isinstance(tensors, str) else tuple(tensors)
        self.estimates = estimates
        self.share = share
        self._rested, self._cost = time.perf_counter(), 0.0
        self._asked: int | None = None
        self._looked: int | None = None
        self._known: frozenset[str] = frozenset()
        list(chosen_tensors(model, self.tensors))

    def after_step(self, step: int) -> None:
        """Do what is due after a step of the optimizer.

        The first call looks at everything; later ones do when a multiple of ``every``
        has been reached or passed since the call before, and ``share`` allows it.

        Args:
            step: the number of steps that the optimizer has made.

        Raises:
            ConstraintLostError: a constraint is lost, with ``lost="stop"``. All figures
                have been logged before.
        """
        due, self._asked = self.is_due(step), step
        start = time.perf_counter()
        if not due or self._rests(start - self._rested):
            return
        since, self._looked = self._looked, step
        found = self._residuals() if _passed(self.every, since, step) else None
        figures = {
            f"residual/{path}": each.value for path, each in (found or {}).items()
        }
        if _passed(self.spectra_every, since, step):
            figures |= self._spectra()
        self._rested = time.perf_counter()
        # the first look pays for what is paid once, and no later one is left out for it
        self._cost = 0.0 if since is None else self._rested - start
        if self.log is not None:
            for name, value in figures.items():
                self.log(name, value, step)
        if found is not None:
            self._judge(found, step)

    def is_due(self, step: int) -> bool:
        """Tell whether this step has its turn, which is the same on all processes.

        Whether there is time for a look may differ between them: what they do together,
        as stopping, they agree upon at every turn.

        Args:
            step: the number of steps that the optimizer has made.
        """
        each = (self.every, self.spectra_every)
        return any(_passed(every, self._asked, step) for every in each)

    def _rests(self, since: float) -> bool:
        """Tell whether it is too early; another machine's clock may be behind."""
        return self.share is not None and 0 <= since * self.share < self._cost

    def _residuals(self) -> dict[str, Residual]:
        return residuals(self.model, self.tensors, estimates=self.estimates)

    def _spectra(self) -> dict[str, float]:
        figures = dict[str, float]()
        for each in chosen_tensors(self.model, self.tensors):
            with without_a_trace(each.source):
                value, links = value_of(each.source), links_of(each.source)
                set_ = promise_of(links[-1] if links else None).set
                sigma = singular_values(value, each.host, set_)
            if sigma is None:
                continue
            low, high = sigma.amin(-1), sigma.amax(-1)
            figures[f"largest_singular_value/{each.path}"] = float(high.max())
            figures[f"smallest_singular_value/{each.path}"] = float(low.min())
            figures[f"condition/{each.path}"] = float((high / low).max())
        return figures

    def _judge(self, found: dict[str, Residual], step: int) -> None:
        lost = {path: each for path, each in found.items() if not each.holds}
        new, self._known = lost.keys() - self._known, frozenset(lost)
        if lost and self.lost == "stop":
            raise ConstraintLostError(_in_words(lost, step))
        if new:
            warnings.warn(_in_words(lost, step), UserWarning, stacklevel=3)


def _passed(every: int, since: int | None, step: int) -> bool:
    """Tell whether a multiple was passed; a step that is repeated passes none."""
    if not every:
        return False
    return since is None or step // every != since // every


def _in_words(lost: dict[str, Residual], step: int) -> str:
    """Name the lost tensors; the first few say how far they are."""
    shown = [f"`{path}` {_fault(each)}" for path, each in [*lost.items()][:3]]
    more = f", and {len(lost) - 3} more" if len(lost) > 3 else ""
    return (
        f"A constraint was lost by step {step}: {', '.join(shown)}{more}. "
        "`holdfast.report(model)` shows all of them; a lower learning rate, or the "
        "last checkpoint, is the way back."
    )


def _fault(each: Residual) -> str:
    if math.isnan(each.value):
        return "is not finite"
    return f"has a residual of {each.value:.2g}, above {each.tolerance:.2g}"

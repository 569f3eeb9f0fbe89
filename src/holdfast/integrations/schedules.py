"""What lives as long as an optimizer, made when a trainer has one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from torch import nn
from torch.optim import Optimizer

from ..model.rebasing import Rebase

MakeSchedule: TypeAlias = Callable[[nn.Module, Optimizer], Any]
"""`holdfast.Rebase` and its like: a model and its optimizer in, a schedule out."""


class Schedules:
    """Schedules that are made when training starts, and removed when it ends.

    A schedule may have ``state_dict`` and ``load_state_dict``, and ``remove``. State
    that is loaded before there are schedules waits for them.

    Args:
        makers: functions of a model and an optimizer. Each makes a schedule for every
            optimizer that moves what it is about: it has to refuse the others by a
            ``ValueError``, as `holdfast.Rebase` does.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.orthogonal(torch.nn.Linear(4, 4))
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> schedules = Schedules([holdfast.Rebase])
        >>> schedules.load_state_dict({"0.0": {"steps": 3}})
        >>> schedules.start(layer, [optimizer])
        >>> layer(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> schedules.state_dict()
        {'0.0': {'steps': 4}}
    """

    def __init__(self, makers: Iterable[MakeSchedule]) -> None:
        self._makers = tuple(makers)
        self._running = dict[str, Any]()
        self._state = dict[str, Any]()

    def start(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        """Make the schedules, and give them the state that waits for them."""
        self.stop()
        try:
            for i, make in enumerate(self._makers):
                self._running |= _made(str(i), make, model, optimizers)
            for key, schedule in self._running.items():
                if key in self._state and hasattr(schedule, "load_state_dict"):
                    schedule.load_state_dict(self._state[key])
        except BaseException:
            self.stop()
            raise

    def moves_bases(self) -> bool:
        """Tell whether base points move."""
        return any(isinstance(each, Rebase) for each in self._running.values())

    def stop(self) -> None:
        """Remove them; what they knew stays in the state."""
        self._state = self.state_dict()
        for schedule in self._running.values():
            if hasattr(schedule, "remove"):
                schedule.remove()
        self._running = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of those that have one, by the numbers of both."""
        return self._state | {
            key: schedule.state_dict()
            for key, schedule in self._running.items()
            if hasattr(schedule, "state_dict")
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state, now or when the schedules are made."""
        self._state = dict(state)
        for key, schedule in self._running.items():
            if key in state and hasattr(schedule, "load_state_dict"):
                schedule.load_state_dict(state[key])


def _made(
    key: str, make: MakeSchedule, model: nn.Module, optimizers: Sequence[Optimizer]
) -> dict[str, Any]:
    """Make one schedule for each optimizer that it is for, which are not none."""
    made, refusal = dict[str, Any](), None
    for i, optimizer in enumerate(optimizers):
        try:
            made[f"{key}.{i}"] = make(model, optimizer)
        except ValueError as error:
            refusal = error
    if refusal is not None and not made:
        raise refusal
    return made

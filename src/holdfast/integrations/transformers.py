"""The Trainer of Hugging Face: residuals in its log, schedules in its checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import distributed as dist
from torch.optim import Optimizer

try:
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "`holdfast.integrations.transformers` needs packages that are not installed. "
        "Install them with `python -m pip install transformers accelerate`."
    ) from error

from ..errors import ConstraintLostError
from ..reporting.training import LOST_ELSEWHERE, Log, Watch
from .schedules import MakeSchedule, Schedules

_OURS = "holdfast"  # the key of our state in the trainer's


class HoldfastCallback(TrainerCallback):
    """Watch parametrized weights, and run the schedules of their maps.

    The figures of `holdfast.Watch` go to ``trainer.log``, and so to all that the
    Trainer reports to, or to a function. When a constraint is lost it warns, or with
    ``lost="stop"`` has the Trainer stop after this step. What the schedules know is
    saved in ``trainer_state.json``, and restored with ``resume_from_checkpoint``.

    Args:
        log: the trainer, a function of name, value and step, or nothing.
        schedules: functions of a model and an optimizer, such as `holdfast.Rebase`,
            `holdfast.Sparsify` or ``partial(holdfast.Rebase, every=10)``. They are
            called when training starts.
        **options: those of `holdfast.Watch`: ``every``, ``spectra_every``, ``tensors``,
            ``lost``, ``estimates``, ``share``.

    Attributes:
        message: what was lost, after training was stopped for it; else empty.

    Example:
        >>> import holdfast
        >>> callback = HoldfastCallback(print, schedules=[holdfast.Rebase], every=50)
        >>> trainer.add_callback(HoldfastCallback(trainer))  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(
        self,
        log: Trainer | Log | None = None,
        *,
        schedules: Iterable[MakeSchedule] = (),
        **options: Any,  # noqa: ANN401
    ) -> None:
        self.message = ""
        self._log = log
        self._options = options
        self._schedules = Schedules(schedules)
        self._figures = dict[str, float]()
        self._watch: Watch | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Start when the optimizer is there, and has its state."""
        self.message = ""
        self._watch = Watch(kwargs["model"], self._collect, **self._options)
        self._schedules.stop()  # those of a run that failed
        self._schedules.load_state_dict(_shared(state).get(_OURS, {}))
        self._schedules.start(kwargs["model"], [_plain(kwargs["optimizer"])])

    def _collect(self, name: str, value: float, step: int) -> None:
        self._figures[name] = value

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Look, log, and stop; note what the schedules know, as a save may follow."""
        assert self._watch is not None
        self._figures = {}
        due, lost = self._watch.is_due(state.global_step), False
        try:
            self._watch.after_step(state.global_step)
        except ConstraintLostError as error:
            self.message, lost = str(error), True
        if due and self._watch.lost == "stop" and _on_any(args.device, lost=lost):
            self.message = self.message or LOST_ELSEWHERE
            warnings.warn(f"Training stops. {self.message}", UserWarning, stacklevel=2)
            control.should_training_stop = True
        if isinstance(self._log, Trainer):
            if self._figures:
                due = control.should_log
                self._log.log(self._figures)
                control.should_log = due  # that of the loss is still to come
        elif self._log is not None:
            for name, value in self._figures.items():
                self._log(name, value, state.global_step)
        if known := self._schedules.state_dict():
            _shared(state)[_OURS] = known

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Take the schedules off the optimizer."""
        self._schedules.stop()


def _on_any(device: torch.device, *, lost: bool) -> bool:
    """Tell whether any process lost it; one that stopped alone would be waited for."""
    if not (dist.is_available() and dist.is_initialized()):
        return lost
    flag = torch.tensor(float(lost), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def _shared(state: TrainerState) -> dict[str, Any]:
    """Return what the Trainer saves for callbacks, a list only while it is made."""
    return cast("dict[str, Any]", state.stateful_callbacks)


def _plain(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer inside the one that accelerate puts around it."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return inner if isinstance(inner, Optimizer) else optimizer

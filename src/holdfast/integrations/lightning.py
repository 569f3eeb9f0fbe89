"""Lightning: residuals in its loggers, schedules in its checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ConstraintLostError
from ..reporting.training import LOST_ELSEWHERE, Watch
from .schedules import MakeSchedule, Schedules

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError:
        try:
            from pytorch_lightning import Callback
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "`holdfast.integrations.lightning` needs a package that is not "
                "installed. Install it with `python -m pip install lightning`."
            ) from error


# Lightning's callbacks that average buffers; by name, as either package may have them
_AVERAGES = {"WeightAveraging", "StochasticWeightAveraging"}


class HoldfastCallback(Callback):
    """Watch parametrized weights, and run the schedules of their maps.

    The figures of `holdfast.Watch` go to all loggers of the trainer, with its
    ``global_step``, and to ``trainer.callback_metrics``. When a constraint is lost it
    warns, or with ``lost="stop"`` has the trainer stop after this batch, on all
    processes. It serves the packages ``lightning`` and ``pytorch_lightning``. Weights
    that a strategy splits over processes (FSDP, DeepSpeed stage 3) cannot be watched.

    Args:
        schedules: functions of a model and an optimizer, such as `holdfast.Rebase`,
            `holdfast.Sparsify` or ``partial(holdfast.Rebase, every=10)``. They are
            called when training starts, for each optimizer, and what they know is
            saved and restored with the trainer's checkpoints.
        **options: those of `holdfast.Watch`: ``every``, ``spectra_every``, ``tensors``,
            ``lost``, ``estimates``, ``share``.

    Attributes:
        message: what was lost, after training was stopped for it; else empty.

    Example:
        >>> from functools import partial
        >>> import holdfast
        >>> callback = HoldfastCallback(
        ...     schedules=[partial(holdfast.Rebase, every=10)], every=50, lost="stop"
        ... )
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[callback])  # doctest: +SKIP
        >>> trainer.fit(module, loader)  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        schedules: Iterable[MakeSchedule] = (),
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        self.message = ""
        self._options = options
        self._schedules = Schedules(schedules)
        self._figures = dict[str, float]()
        self._watch: Watch | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start when the optimizers are there, and have their state."""
        self.message = ""
        self._watch = Watch(pl_module, self._collect, **self._options)
        self._schedules.start(pl_module, trainer.optimizers)
        others: Any = trainer  # makes an attribute that its class does not declare
        kinds = {cls.__name__ for each in others.callbacks for cls in type(each).mro()}
        if self._schedules.moves_bases() and kinds & _AVERAGES:
            warnings.warn(
                "`Rebase` moves base points, and another callback averages them: the "
                "mean of two is no orthogonal matrix, so that averaged weights will "
                "lose their constraint. Use `holdfast.AverageWeights`.",
                UserWarning,
                stacklevel=2,
            )

    def _collect(self, name: str, value: float, step: int) -> None:
        self._figures[name] = value

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        *_: Any,  # noqa: ANN401
    ) -> None:
        """Look, log, and stop."""
        assert self._watch is not None
        step = trainer.global_step
        if not self._watch.is_due(step):
            return
        self._figures, lost = {}, False
        try:
            self._watch.after_step(step)
        except ConstraintLostError as error:
            self.message, lost = str(error), True
        if self._figures:
            for logger in trainer.loggers:
                logger.log_metrics(self._figures, step=step)
        trainer.callback_metrics.update(
            {name: torch.tensor(value) for name, value in self._figures.items()}
        )
        if trainer.strategy.reduce_boolean_decision(lost, all=False):
            self.message = self.message or LOST_ELSEWHERE
            warnings.warn(f"Training stops. {self.message}", UserWarning, stacklevel=2)
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the schedules off the optimizers."""
        self._schedules.stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take the schedules off the optimizers."""
        self._schedules.stop()

    def state_dict(self) -> dict[str, Any]:
        """Return what the schedules know."""
        return {"schedules": self._schedules.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with what the schedules knew."""
        self._schedules.load_state_dict(state_dict["schedules"])

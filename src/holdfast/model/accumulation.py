"""Gradients of many micro-batches, with one backward pass of each map."""

from __future__ import annotations

import contextlib
import sys
from types import TracebackType

from torch import nn

from ..core.cache import cached, flush
from ..core.checks import check_module
from ..core.leaves import Leaves
from ..core.scope import Scope, suspendable_frame
from ..core.sharded import refuse_sharded
from ..core.torch_state import is_traced


class accumulate(contextlib.ContextDecorator):
    r"""Evaluate each map once for many backward passes, forward and backward.

    Inside the scope each weight is computed once and handed out as a leaf W, in whose
    ``grad`` the micro-batches come together. At the end, and at every
    ``optimizer.step()`` inside, one backward pass of each map brings them to the
    originals X:

    .. math::
        \nabla_X = J^T \sum_i \nabla_W L_i, \qquad J = \partial W / \partial X

    The gradients are those of plain backward passes, to rounding; after an exception
    the originals get none. Scaled losses (``GradScaler``) and ``retain_graph`` work as
    ever, and so does ``zero_grad``, which forgets what waits too: originals whose
    gradients wait have zeros meanwhile. ``optimizer.step(closure)`` has the gradients
    that the closure computes. What looks at the gradients of originals comes
    after the scope, or after :meth:`flush`: clipping (refused before, also through
    ``.data``, NumPy or another ``grad``),
    ``scaler.unscale_`` and ``scaler.step``. ``torch.autograd.grad`` inside the scope
    knows no originals. With ``DistributedDataParallel``, keep the scope inside of
    ``no_sync()`` and run the last micro-batch after both, which reduces the sum. A
    graph that is compiled evaluates its weights itself.

    Args:
        model: the model.
        foreach: evaluate in batches; see `cached`.

    Raises:
        InvalidTensorError: when it is entered, for a model that FSDP shards: that frees
            the originals after each backward pass.

    Example:
        >>> import torch, holdfast
        >>> model = holdfast.orthogonal(torch.nn.Linear(4, 4))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with holdfast.accumulate(model):
        ...     for x in torch.randn(8, 2, 4):
        ...         model(x).square().sum().backward()
        >>> optimizer.step()
    """

    def __init__(self, model: nn.Module, *, foreach: bool | None = None) -> None:
        check_module(model, "accumulate")
        self.model = model
        self.foreach = foreach
        self._cached = cached(model, foreach=foreach)
        self._scopes: list[Scope] = []

    def _recreate_cm(self) -> accumulate:
        """Give every call of a decorated function a scope of its own."""
        return accumulate(self.model, foreach=self.foreach)

    def __enter__(self) -> accumulate:
        """Open the scope."""
        if is_traced():
            self._cached.__enter__()
            return self
        refuse_sharded(
            self.model,
            "which frees the originals after each backward pass, before `accumulate` "
            "needs them. Use `holdfast.cached(model)` around each micro-batch.",
        )
        frame = suspendable_frame(sys._getframe(1))
        self._scopes.append(self._cached._open(frame, Leaves()))
        return self

    def flush(self) -> None:
        """Bring the gradients to the originals now."""
        if self._scopes:
            flush(self._scopes[-1])

    def drop(self) -> None:
        """Forget the gradients that wait, and only these.

        Example:
            >>> import torch, holdfast
            >>> model = holdfast.orthogonal(torch.nn.Linear(4, 4))
            >>> with holdfast.accumulate(model) as waiting:
            ...     (model(torch.ones(1, 4)).sum() * float("nan")).backward()
            ...     waiting.drop()
            ...     model.zero_grad()
            >>> model.parametrizations.weight.original.grad is None
            True
        """
        if self._scopes and (leaves := self._scopes[-1].leaves) is not None:
            leaves.drop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Bring the gradients to the originals, unless there is an error."""
        scope = self._scopes.pop() if self._scopes else None
        try:
            if scope is not None and kind is None:
                flush(scope)
        finally:
            if scope is not None and scope.leaves is not None:
                scope.leaves.close()
            self._cached.__exit__(kind, error, trace)

"""Writing in place (W1): inside ``with writable(model):`` every write arrives."""

from __future__ import annotations

import contextlib

from torch import nn

from .aside import is_aside, put_back, set_aside
from .checks import check_module
from .deferral import own_tensors, refuse_lazy
from .sources import hosts_below
from .transaction import Snapshot


class writable(contextlib.ContextDecorator):
    """Let what is written to parametrized tensors reach their originals.

    Outside of it ``module.weight`` is a value just computed: writing to it, as
    ``nn.init`` and ``reset_parameters`` do, changes nothing. Inside, the modules are
    plain, as in `folded`. At the end each tensor that was written to, also through
    ``.data``, is assigned through the right inverse of its chain, under the chain's
    policy for values outside of its set.

    All of it is done or nothing: if the block raises, or one value cannot be assigned,
    every tensor of the modules, plain ones too, is what it was at the beginning. For
    that the scope keeps a copy of them.

    Args:
        *modules: the modules, with all below them.

    Raises:
        InvalidTensorError: a tensor of a lazy module has no shape yet.
        NotInSetError: a written value is not in the set that its maps reach, and the
            policy is "error".
        NoRightInverseError: one of its maps has no right inverse.
        NonFiniteError: a right inverse gave NaN or infinity.

    Example:
        >>> import torch, holdfast
        >>> model = torch.nn.Sequential(holdfast.weight_norm(torch.nn.Linear(2, 2)))
        >>> def init(module):
        ...     if isinstance(module, torch.nn.Linear):
        ...         torch.nn.init.eye_(module.weight)
        >>> with holdfast.writable(model):
        ...     _ = model.apply(init)
        >>> model[0].weight.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, *modules: nn.Module) -> None:
        for module in modules:
            check_module(module, "writable")
        if not modules:
            raise TypeError("`writable` takes the modules that are to be written to.")
        self.modules = modules
        self._entered: list[tuple[list[nn.Module], Snapshot]] = []

    def __enter__(self) -> None:
        """Make the modules plain, and note what they are."""
        for module in self.modules:
            refuse_lazy(module, own_tensors)
        hosts = {id(m): m for module in self.modules for m in hosts_below(module)}
        plain = set_aside(hosts.values())
        snapshot = Snapshot(self.modules)
        try:
            snapshot.__enter__()
        except BaseException:  # there is no memory for it
            put_back(plain, discard=True)
            raise
        self._entered.append((plain, snapshot))

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Assign what was written, or put everything back."""
        plain, snapshot = self._entered.pop()
        try:
            if error is None:
                put_back(plain)
        except BaseException:
            error = BaseException
            raise
        finally:
            # none is where an interruption came too late to undo anything
            if error is not None and all(map(is_aside, plain)):
                snapshot.restore()
                put_back(plain, discard=True)

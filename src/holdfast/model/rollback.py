"""Changes of a whole model that a failure takes back."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager

from torch import nn

from ..core.placement import undone_on_failure
from ..core.transaction import Snapshot


@contextmanager
def undone_as_a_whole(model: nn.Module, hosts: Iterable[nn.Module]) -> Generator[None]:
    """Put a model back when the block fails: values, gradients, chains and classes.

    It keeps a copy of all tensors while the block runs, of those with values.

    Args:
        model: the model.
        hosts: the modules in it that may get chains.
    """
    slopes = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        with ExitStack() as undo:
            for module in hosts:
                undo.enter_context(undone_on_failure(module))
            undo.enter_context(Snapshot([model]))
            yield
    except BaseException:
        for parameter, slope in slopes:
            parameter.grad = slope
        raise

"""``nn.RNN``, ``nn.LSTM`` and ``nn.GRU``, which keep a list of their weights.

The list, ``_flat_weights``, is what their forward computes with. Parametrized weights
are in it only while a forward runs: then each is computed once, and between steps the
module holds no value and no graph, so that it can be copied.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class _Gone:
    """Stands for a weight that is no longer there."""


def methods_of(cls: type, base: type[nn.RNNBase]) -> dict[str, Callable[..., Any]]:
    """Return the methods that the parametrized class ``cls`` of ``base`` needs."""

    @functools.wraps(base.forward)
    def forward(self: nn.RNNBase, *args: Any, **kwargs: Any) -> Any:
        self.__dict__["_flat_weights"] = [
            getattr(self, name) for name in self._flat_weights_names
        ]
        try:
            return super(cls, self).forward(*args, **kwargs)  # type: ignore[misc]
        finally:
            release(self)

    return {
        "forward": forward,
        # torch looks for changed weights before each forward and each copy
        "_update_flat_weights": _leave,
        "_init_flat_weights": release,
    }


def _leave(_: nn.RNNBase) -> None:
    """Change nothing: the list is right at any time."""


def release(module: nn.Module) -> None:
    """Leave only plain weights in the list; anything else must be read again.

    A dead reference tells torch's own forward that a weight has changed, which keeps
    the module whole when torch itself removes the parametrization.
    """
    if not isinstance(module, nn.RNNBase):
        return
    weights: list[Tensor | None] = [
        module._parameters.get(name) for name in module._flat_weights_names
    ]
    gone = weakref.ref(_Gone())
    module.__dict__["_flat_weights"] = weights
    module.__dict__["_flat_weight_refs"] = [
        gone if weight is None else weakref.ref(weight) for weight in weights
    ]

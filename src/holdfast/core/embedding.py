"""``nn.Embedding`` and ``nn.EmbeddingBag`` with ``max_norm``, which write to weights.

Their forward scales down, in place, the rows that it looks up. Of a computed weight it
gets a copy to write to: else it would write to what others read, or to what a map has
saved for its backward pass. What it looks up is of the right norm either way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


def looking_up(cls: type, base: type[nn.Module]) -> dict[str, Callable[..., Any]]:
    """Return the forward for a class derived from ``base``, if it is one of torch's."""
    lookup = _LOOKUPS.get(base.forward)
    if lookup is None:
        return {}

    @functools.wraps(base.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        if self.max_norm is None:
            return super(cls, self).forward(*args, **kwargs)  # type: ignore[misc]
        return lookup(self, self.weight.clone(), *args, **kwargs)

    return {"forward": forward}


def _embedding(self: nn.Embedding, weight: Tensor, input: Tensor) -> Tensor:  # torch's
    return F.embedding(
        input,
        weight,
        self.padding_idx,
        self.max_norm,
        self.norm_type,
        self.scale_grad_by_freq,
        self.sparse,
    )


def _bag(
    self: nn.EmbeddingBag,
    weight: Tensor,
    input: Tensor,  # torch's
    offsets: Tensor | None = None,
    per_sample_weights: Tensor | None = None,
) -> Tensor:
    return F.embedding_bag(
        input,
        weight,
        offsets,
        self.max_norm,
        self.norm_type,
        self.scale_grad_by_freq,
        self.mode,
        self.sparse,
        per_sample_weights,
        self.include_last_offset,
        self.padding_idx,
    )


_LOOKUPS: dict[Any, Callable[..., Tensor]] = {
    nn.Embedding.forward: _embedding,
    nn.EmbeddingBag.forward: _bag,
}

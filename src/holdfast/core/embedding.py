"""``nn.Embedding`` and ``nn.EmbeddingBag``, which write to weights or thin gradients.

With ``max_norm`` their forward scales down, in place, the rows that it looks up. Of a
computed weight it gets a copy to write to: else it would write to what others read, or
to what a map has saved for its backward pass. What it looks up is of the right norm
either way. With ``sparse`` the gradient of the weight is sparse, through which few maps
can go back, and that of the originals is dense all the same: of a computed weight it is
dense.
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
        thin = self.sparse and _is_computed(self)
        if self.max_norm is None and not thin:
            return super(cls, self).forward(*args, **kwargs)  # type: ignore[misc]
        weight = self.weight if self.max_norm is None else self.weight.clone()
        sparse = self.sparse and not thin
        return lookup(self, weight, sparse, *args, **kwargs)

    return {"forward": forward}


def _is_computed(module: nn.Module) -> bool:
    """Tell whether this one has a parametrized weight; others of its class may."""
    chains: Any = module._modules.get("parametrizations")
    return chains is not None and "weight" in chains._modules


def _embedding(
    self: nn.Embedding,
    weight: Tensor,
    sparse: bool,  # noqa: FBT001
    input: Tensor,  # torch's
) -> Tensor:
    return F.embedding(
        input,
        weight,
        self.padding_idx,
        self.max_norm,
        self.norm_type,
        self.scale_grad_by_freq,
        sparse,
    )


def _bag(
    self: nn.EmbeddingBag,
    weight: Tensor,
    sparse: bool,  # noqa: FBT001
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
        sparse,
        per_sample_weights,
        self.include_last_offset,
        self.padding_idx,
    )


_LOOKUPS: dict[Any, Callable[..., Tensor]] = {
    nn.Embedding.forward: _embedding,
    nn.EmbeddingBag.forward: _bag,
}

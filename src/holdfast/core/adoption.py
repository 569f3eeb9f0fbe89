"""From a plain tensor to the originals that maps start from, and how far that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..linalg.precision import double
from ..linalg.tolerances import tolerance
from .checks import Where, as_tuple, check_image, check_registered, explain
from .entry import PLAIN
from .inversion import invert
from .torch_state import no_gradients
from .transaction import like

if TYPE_CHECKING:
    from .chain import ParametrizationList

_TINY = torch.finfo(torch.float32).tiny

# How far a value has moved that is what it was, and its norm or any other; no tensors,
# which would be made on whatever device or in whatever mode this is imported
UNMOVED = 0.0, 1.0


def adopt(chain: ParametrizationList, original: Tensor, where: Where) -> None:
    """Turn a plain tensor into the originals that the maps start from."""
    value = original.detach()
    with no_gradients():
        new = invert(chain, value, where, registering=True)
        new = check_registered(value, new, where)
        originals = as_tuple(new)
        try:
            image = chain.compute(*originals)
        except Exception as error:
            explain(error, chain.links()[-1], value, where)
            raise
        check_image(image, value, where, unsafe=chain.unsafe)
        chain.__dict__.update(
            is_tensor=isinstance(new, Tensor),
            ntensors=len(originals),
            _moved=distance(image, value),
        )
        if isinstance(new, Tensor):
            chain._register("original", original)
            chain.__dict__["_pending"] = new
        else:
            for i, tensor in enumerate(originals):
                chain._register(f"original{i}", like(original, tensor))


def distance(new: Tensor, old: Tensor) -> tuple[Tensor, Tensor] | tuple[float, float]:
    """Return ``||new - old||`` and ``||old||``."""
    comparable = new.is_cpu and type(new) in PLAIN and new.dtype == old.dtype
    if comparable and torch.equal(new, old):
        return UNMOVED
    norm = torch.linalg.vector_norm
    numbers = old.is_floating_point() or old.is_complex()
    if new.shape != old.shape or (new.dtype != old.dtype and not numbers):
        return float("nan"), 1.0
    if not numbers:  # codes, or a mask
        new, old = double(new), double(old)
    return norm(new - old), norm(old)


def relative_distance(chain: ParametrizationList) -> float:
    """Return how far registration moved the value, relative to its norm."""
    distance, norm = chain._moved
    relative = float(distance) / max(float(norm), _TINY)
    value = torch.empty(chain.shape, dtype=chain.originals()[0].dtype, device="meta")
    exact = not (value.is_floating_point() or value.is_complex())
    return 0.0 if relative <= (0 if exact else tolerance(value)) else relative

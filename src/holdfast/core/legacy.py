"""The hooks of ``torch.nn.utils.weight_norm`` and ``spectral_norm``, torch's old ones.

They keep ``weight_g`` and ``weight_v``, or ``weight_orig``, ``weight_u`` and
``weight_v``, and set ``weight`` as an attribute before each forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..errors import InvalidTensorError, describe
from .checks import Where

_PARTS: dict[type, tuple[tuple[str, ...], tuple[str, ...]]] = {
    WeightNorm: (("_g", "_v"), ()),
    SpectralNorm: (("_orig",), ("_u", "_v")),
}


class LegacyNorm:
    """A tensor that one of the old hooks computes, apart from the module it is of."""

    def __init__(self, module: nn.Module, hook: WeightNorm | SpectralNorm) -> None:
        self.hook, self.name = hook, hook.name
        self.attribute = module.__dict__.get(self.name)
        self.holder = nn.Module()  # of what the hook computes from
        self.holder.training = module.training
        parameters, buffers = _PARTS[type(hook)]
        for registry, ends in (("_parameters", parameters), ("_buffers", buffers)):
            here, there = module.__dict__[registry], self.holder.__dict__[registry]
            there.update((self.name + end, here[self.name + end]) for end in ends)

    @property
    def key(self) -> int:
        """What tells it from others."""
        return id(self.hook)

    def originals(self) -> list[Tensor]:
        """Return the free tensors."""
        return [*self.holder.parameters()]

    def persistent(self) -> bool:
        """Tell whether a state dict has it."""
        return True

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return what the module has of it, by registry and name."""
        state = self.holder.__dict__
        return {
            "_parameters": state["_parameters"],
            "_buffers": state["_buffers"],
            "__dict__": {self.name: self.attribute},
        }

    def owns(self, hook: object) -> bool:
        """Tell whether a hook of the module belongs to it."""
        hook = getattr(hook, "hook", hook)  # torch wraps those that run before loading
        return hook is self.hook or getattr(hook, "fn", None) is self.hook

    def value(self) -> Tensor:
        """Compute the value; no power iteration advances."""
        if isinstance(self.hook, SpectralNorm):
            return self.hook.compute_weight(self.holder, do_power_iteration=False)
        return self.hook.compute_weight(self.holder)

    def guarded(self) -> list[nn.Module]:
        """Return the modules whose state `inverted` may move: none."""
        return []

    def inverted(self, value: Tensor, where: Where) -> list[tuple[Tensor, Tensor]]:
        """Return each original with what it has to become for a value.

        Spectral norm takes any tensor, and divides it by its norm, as ever.
        """
        originals = self.originals()
        like = originals[-1]
        if (value.shape, value.dtype) != (like.shape, like.dtype):
            raise InvalidTensorError(
                f"Cannot assign {describe(value)} to `{where()}`: expected shape "
                f"{tuple(like.shape)}, dtype {like.dtype}."
            )
        if isinstance(self.hook, SpectralNorm):
            return [(like, value)]
        lengths = torch.norm_except_dim(value, 2, self.hook.dim)
        return [*zip(originals, (lengths, value), strict=True)]

    def settle(self) -> None:
        """Let the attribute be the value that the originals have now."""
        self.attribute = self.value().detach()

    def follow(self, tensor: Tensor) -> None:
        """Go to the device and dtype of a tensor."""
        self.holder.to(device=tensor.device, dtype=tensor.dtype)
        self.settle()


def legacy_norms(module: nn.Module) -> Iterator[LegacyNorm]:
    """Yield what the old hooks of a module compute."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm):
            yield LegacyNorm(module, hook)


def hint_of_legacy(module: nn.Module, name: str) -> str:
    """Return what to do about a tensor that an old hook computes, or nothing."""
    for old in legacy_norms(module):
        if old.name == name:
            norm = "weight" if isinstance(old.hook, WeightNorm) else "spectral"
            return (
                f" The older `torch.nn.utils.{norm}_norm` computes it: call "
                f"`torch.nn.utils.remove_{norm}_norm` first."
            )
    return ""

"""Weight decay, where it means something."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..core.chain import ParametrizationList
from ..core.checks import check_module, check_optimizer
from ..core.deferral import awaited, refuse_lazy
from ..core.parametrization import decays_through
from .optim import chains_moved_by


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    r"""Return the parameters in two groups, with weight decay and without.

    Without are the originals that a map declares weight decay to mean nothing for
    (`Parametrization.decays`): coordinates of an orthogonal matrix, the direction of a
    slice beside its length, what is divided by its norm, logits. Shrinking them does
    not shrink the weight, but changes it, or the step size. All other parameters keep
    the decay, those of maps too that declare nothing; originals that pass through
    several maps keep it if all of these do, and so do adapters, whose decay leads back
    to the weight that they began with. `DecayWeights` decays the weights instead.

    Args:
        model: the model.
        weight_decay: that of the first group; the second has 0.

    Raises:
        ValueError: ``weight_decay`` is negative.
        InvalidTensorError: a tensor of a lazy module is to be parametrized in the first
            forward.

    Example:
        >>> import torch, holdfast
        >>> model = holdfast.weight_norm(torch.nn.Linear(3, 2))
        >>> groups = holdfast.parameter_groups(model, weight_decay=0.01)
        >>> [[tuple(p.shape) for p in group["params"]] for group in groups]
        [[(2,), (2, 1)], [(2, 3)]]
        >>> optimizer = torch.optim.AdamW(groups)
    """
    check_module(model, "parameter_groups")
    _check(weight_decay)
    refuse_lazy(model, awaited)
    kept = {
        id(original)
        for module in model.modules()
        for chain in _chains(module)
        for original, decays in zip(chain.originals(), _decays(chain), strict=True)
        if not decays
    }
    parameters = list(model.parameters())
    return [
        {
            "params": [p for p in parameters if id(p) not in kept],
            "weight_decay": weight_decay,
        },
        {"params": [p for p in parameters if id(p) in kept], "weight_decay": 0.0},
    ]


def _check(weight_decay: float) -> None:
    if not 0 <= weight_decay < math.inf:
        raise ValueError(
            f"Expected a finite `weight_decay`, 0 or positive. Got {weight_decay}."
        )


def _chains(module: nn.Module) -> list[ParametrizationList]:
    chains: Any = module._modules.get("parametrizations")
    return [
        chain
        for chain in getattr(chains, "_modules", {}).values()
        if isinstance(chain, ParametrizationList)
    ]


def _decays(chain: ParametrizationList) -> list[bool]:
    """Tell of each original whether weight decay means something."""
    flags = decays_through(chain._modules.values())
    return [flags] * chain.ntensors if isinstance(flags, bool) else [*flags]


class DecayWeights:
    r"""Decay the weights of parametrized tensors, in the gradient, at every step.

    .. math::
        \nabla_X \leftarrow \nabla_X + \lambda\, J^T W, \qquad J = \partial W/\partial X

    This is the gradient of :math:`\frac{\lambda}{2}\|W\|^2`, which ``weight_decay`` of
    `torch.optim.SGD` adds for plain parameters. It never leads out of a set, and where
    all members have one norm, as orthogonal matrices, it is zero. It costs one
    evaluation of each map and its gradient per step. Optimizers that scale gradients,
    such as Adam, scale the decay with them. Give the originals no decay of their own.

    Args:
        model: the model.
        optimizer: its optimizer; it decays the weights that this one moves.
        weight_decay: the number λ.

    Raises:
        ValueError: ``weight_decay`` is negative, or the optimizer moves no
            parametrized tensor of the model.

    Example:
        >>> import torch, holdfast
        >>> model = holdfast.weight_norm(torch.nn.Linear(3, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> _ = holdfast.DecayWeights(model, optimizer, weight_decay=1.0)
        >>> before = model.weight.norm()
        >>> optimizer.step()
        >>> print(f"{model.weight.norm() / before:.3f}")
        0.900
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, *, weight_decay: float
    ) -> None:
        check_module(model, "DecayWeights")
        check_optimizer(optimizer, "DecayWeights")
        _check(weight_decay)
        self.weight_decay = weight_decay
        self._chains = [chain for _, _, chain in chains_moved_by(optimizer, model)]
        if not self._chains:
            raise ValueError(
                "The optimizer moves no parametrized tensor of the model: register "
                "before it is made, or call `holdfast.swap_parameters(optimizer)`."
            )
        self._handle = optimizer.register_step_pre_hook(self._before_step)

    @torch.enable_grad()
    def _before_step(self, *_: Any) -> None:  # noqa: ANN401
        weights: list[Tensor] = [chain() for chain in self._chains]
        moved = [weight for weight in weights if weight.requires_grad]
        torch.autograd.backward(
            moved, [self.weight_decay * weight.detach() for weight in moved]
        )

    def remove(self) -> None:
        """Decay no weight from now on."""
        self._handle.remove()

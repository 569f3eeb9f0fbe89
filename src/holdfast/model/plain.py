"""A parametrized model as its plain weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..core.chain import ParametrizationList
from ..core.checks import check_module
from ..core.deferral import awaited, refuse_lazy
from ..core.entry import tensors_of
from ..core.joints import Joint, joints_of
from ..core.sharded import is_sharded, whole
from ..core.stacking import twin_of
from ..errors import InvalidTensorError


def plain_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return a state dict as if nothing were parametrized.

    The keys are the ordinary ones, with the values of the weights; what belongs to maps
    is left out. A model of the same class loads it, plain or parametrized.

    Args:
        model: any module.

    Returns:
        The tensors by their names. Weights are values of their own; all else shares
        memory with the model, as in a state dict, and a weight with two names has one
        tensor. Of a model that ``fully_shard`` splits all are whole, and every process
        has to ask for them.

    Raises:
        InvalidTensorError: a wrapper in the model renames what its state dict holds, or
            a tensor that is to be parametrized has no shape yet.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.weight_norm(torch.nn.Linear(2, 3))
        >>> "weight" in layer.state_dict()
        False
        >>> list(holdfast.plain_state_dict(layer))
        ['weight', 'bias']
        >>> _ = torch.nn.Linear(2, 3).load_state_dict(holdfast.plain_state_dict(layer))
    """
    check_module(model, "plain_state_dict")
    refuse_lazy(model, awaited)
    state = model.state_dict()
    if any(map(is_sharded, state.values())):
        state = {key: whole(value) for key, value in state.items()}
    values = dict[int, Tensor]()
    for prefix, module in model.named_modules(remove_duplicate=False):
        chains: Any = module._modules.get("parametrizations")
        if isinstance(chains, nn.ModuleDict):
            state = _unparametrized(
                state, f"{prefix}." if prefix else "", module, values
            )
        for joint in joints_of(type(module)):
            state = _separated(state, f"{prefix}." if prefix else "", joint)
    _refuse_renamed(state, model)
    return state


def _refuse_renamed(state: dict[str, Any], model: nn.Module) -> None:
    """Refuse a state dict in which a wrapper has renamed what belongs to maps."""
    paths = {path for path, _ in model.named_modules(remove_duplicate=False)}
    for key in state:
        path = key.rpartition(".")[0]
        if "parametrizations" in path.split(".") and path not in paths:
            raise InvalidTensorError(
                f"`{key}` is the name in a state dict of what has another path in this "
                f"{type(model).__name__}, as in what `FullyShardedDataParallel` or "
                "`checkpoint_wrapper` wrap. Take the plain state dict of the module "
                "that is wrapped, for the former inside `summon_full_params`."
            )


@torch.no_grad()
def _value(module: nn.Module, name: str, chain: nn.Module) -> Tensor:
    """Compute a weight from whole originals, also where they are sharded."""
    if isinstance(chain, ParametrizationList):
        tensors = [tensor for *_, tensor in tensors_of(chain)]
        if any(map(is_sharded, tensors)):
            return twin_of(chain, tuple(map(whole, tensors))).evaluate().contiguous()
    return getattr(module, name).detach().contiguous()


def _separated(state: dict[str, Any], prefix: str, joint: Joint) -> dict[str, Any]:
    """Put the tensors that were joined in the place of their whole."""
    result = dict[str, Any]()
    for key, value in state.items():
        if key == prefix + joint.name:
            for name, part in joint.split(value).items():
                result[prefix + name] = part.contiguous()
        else:
            result[key] = value
    return result


def _unparametrized(
    state: dict[str, Any], prefix: str, module: nn.Module, values: dict[int, Tensor]
) -> dict[str, Any]:
    """Put the values of a module's chains in the place of what they are made of."""
    chains: Any = module._modules["parametrizations"]
    own, new = f"{prefix}parametrizations.", dict[str, Any]()
    for name, chain in chains._modules.items():
        originals = [*chain._parameters, *chain._buffers]
        if any(f"{own}{name}.{key}" in state for key in originals):
            if id(chain) not in values:
                values[id(chain)] = _value(module, name, chain)
            new[prefix + name] = values[id(chain)]
    rest = {key: value for key, value in state.items() if not key.startswith(own)}
    first = next((k for k in rest if k.startswith(prefix)), None)
    result = dict[str, Any]()
    for key, value in rest.items():
        if key == first:
            result |= new
        result[key] = value
    return result | new

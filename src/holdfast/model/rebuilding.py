"""Chains that a file describes, built for the tensors of a model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.chain import ParametrizationList
from ..core.classes import chain_of
from ..core.registration import prepare
from ..errors import CheckpointError, HoldfastError, did_you_mean
from .allowance import allowance
from .header import ChainData
from .rules import specs
from .stored import Stored


def rebuilt(
    file: Stored, model: nn.Module, chain: ChainData
) -> tuple[nn.Module, str, ParametrizationList] | None:
    """Return a chain that only has to be put in place; ``None`` if it is there."""
    prefix, _, name = chain.path.rpartition(".")
    try:
        module = model.get_submodule(prefix)
    except AttributeError:
        known = [path for path, _ in model.named_modules()]
        raise CheckpointError(
            f"{file.path}: the model has no `{chain.path:.200}`."
            + did_you_mean(prefix, [path for path in known if path][:1000])
        ) from None
    present = chain_of(module, name)
    if present is not None:
        _check_same(file, chain, present)
        return None
    _fill(file, chain)
    host, training = _host(module, name), module.training
    for map_ in chain.maps:
        map_.train(map_.training and training)
    try:
        with allowance(chain.maps, [_plain(host, name)]):
            prepared = prepare(
                host,
                name,
                chain.maps,
                lambda: chain.path,
                unsafe=chain.unsafe,
                outside=chain.outside,
            )
    except Exception as error:
        raise CheckpointError(f"{file.path}: `{chain.path}`: {error}") from error
    return module, name, prepared.chain


def _plain(host: nn.Module, name: str) -> Tensor:
    """Return the tensor that a chain is for; what is none, `prepare` refuses."""
    tensor = host._parameters.get(name, host._buffers.get(name))
    return torch.empty(0) if tensor is None else tensor


def _host(module: nn.Module, name: str) -> nn.Module:
    """Return the module, or one with a stand-in for its tensor without values."""
    for registry in ("_parameters", "_buffers"):
        tensor = getattr(module, registry).get(name)
        if isinstance(tensor, Tensor) and tensor.is_meta:
            values = torch.randn(tensor.shape, dtype=tensor.dtype, device="cpu")
            stand_in, host = nn.Parameter(values, tensor.requires_grad), nn.Module()
            getattr(host, registry)[name] = (
                stand_in if registry == "_parameters" else values
            )
            return host
    return module


def _check_same(file: Stored, chain: ChainData, present: nn.ModuleList) -> None:
    try:
        mine = [_outline(spec) for spec in specs([*present._modules.values()])]  # type: ignore[list-item]
    except HoldfastError as error:
        raise CheckpointError(f"{file.path}: `{chain.path}`: {error}") from error
    theirs = [_outline(map_.spec()) for map_ in chain.maps]
    if mine != theirs:
        raise CheckpointError(
            f"{file.path}: `{chain.path}` is parametrized by {chain.maps} in the file, "
            f"and otherwise in the model. Give a plain model, or one with these maps."
        )


def _outline(spec: object) -> object:
    """Return a spec without the values of tensors, which the state brings."""
    if isinstance(spec, dict):
        return {k: _outline(v) for k, v in spec.items() if k != "values"}
    return [_outline(v) for v in spec] if isinstance(spec, list) else spec


def _fill(file: Stored, chain: ChainData) -> None:
    """Give tensors that are arguments of maps the values of the file."""
    prefix, _, name = chain.path.rpartition(".")
    start = f"{prefix}." if prefix else ""
    keys = file.keys()
    for i, map_ in enumerate(chain.maps):
        own = f"{start}parametrizations.{name}.{i}."
        for key, tensor in (*map_.named_parameters(), *map_.named_buffers()):
            if own + key in keys and file.shape(own + key) == tuple(tensor.shape):
                with torch.no_grad():
                    tensor.copy_(file.tensor(own + key))

"""Laws of a registered map: what it does to a module, its training and its copies."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .. import maps
from ..core.parametrization import Parametrization
from ..core.removal import remove_parametrizations
from .case import CLOSE, Case, Host, Shape, hosted
from .law import law, need, need_close
from .value_laws import need_member

# Of a map that moves anything, a weight in two may have no slope at the start.
_STARTS = 20


@law(
    "registering",
    "a value of the codomain kept when the map comes, and all bits when it goes",
    "Correct `right_inverse`; draw no random numbers in `forward`.",
)
def registering(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """Registering keeps a feasible value to rounding, removing keeps its bits."""
    W = case.sample(shape, dtype)
    if len(case.make(shape)) == 1:
        host = case.registered(W.clone()).eval()
        moved: Any = host.parametrizations.weight.moved  # pyright: ignore[reportAttributeAccessIssue]
        need(moved <= 10 * CLOSE[dtype], f"a value moved by {moved:.1e}")
    else:  # a chain of several takes its value by assignment
        host = case.registered(torch.randn_like(W)).eval()
        host.weight = W  # pyright: ignore[reportAttributeAccessIssue]
    need_close(host.weight, W, "the registered value is")
    value = host.weight.detach()
    remove_parametrizations(host, "weight")
    need_close(host.weight, value, "the value that stays is", 0.0)


def _sgd(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True)


def _adamw(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)


@law(
    "optimizer",
    "the constraint to hold after steps with momentum and weight decay",
    "Keep what must not be trained in a buffer, not in an original.",
)
def optimizer(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """Three steps of AdamW, and of SGD with momentum, stay in the codomain."""
    free = math.prod(shape) and case.codomain(shape).dim(shape, dtype) > 0
    for make in (_adamw, _sgd):
        # where a bound is attained, or a function saturates, there is no slope
        starts = (_trains(case, shape, dtype, make) for _ in range(_STARTS))
        need(any(starts) or not free, "a value that three steps did not change")


def _trains(
    case: Case,
    shape: Shape,
    dtype: torch.dtype,
    make: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
) -> bool:
    """Train a random weight; tell whether its value moves."""
    host = case.registered(torch.randn(shape, dtype=dtype) / 2)
    steps = make(host.parameters())
    before, target = host.weight.detach().clone(), torch.randn(shape, dtype=dtype)
    for _ in range(3):
        steps.zero_grad()
        loss = host(target)
        (loss.real if loss.is_complex() else loss).backward()
        steps.step()
        need_member(case, host.weight)
    return not torch.equal(host.weight, before)


@law(
    "copies",
    "the same bits after state dict, deepcopy and pickle",
    "Keep state in buffers, made in `bind`; define the class in a module.",
)
def copies(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """State dict, deepcopy and pickle give the same weight."""
    host = _assigned(case, shape, dtype)
    loaded = case.registered(torch.randn(shape, dtype=dtype)).eval()
    loaded.load_state_dict(host.state_dict())
    twins: dict[str, nn.Module] = {
        "a loaded state dict": loaded,
        "deepcopy": copy.deepcopy(host),
        "pickle": pickle.loads(pickle.dumps(host)),
    }
    for name, twin in twins.items():
        _need_same(twin, host, name)


def _assigned(case: Case, shape: Shape, dtype: torch.dtype) -> Host:
    """Return a module whose state is not the one that it began with."""
    host = case.registered(torch.randn(shape, dtype=dtype)).eval()
    if case.invertible:
        host.weight = case.sample(shape, dtype)  # pyright: ignore[reportAttributeAccessIssue]
    return host


def _need_same(twin: Any, host: Host, name: str) -> None:  # noqa: ANN401
    need_close(twin.weight, host.weight, f"after {name} it is", 0.0)
    need(str(twin) == str(host), f"another repr after {name}")


@law(
    "spec",
    "`from_spec(map.spec())` to be the same map",
    "Store the constructor's arguments as they are, and annotate them.",
)
def plain_data(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """A map is rebuilt from its spec, and a weight from that and its state dict."""
    chain = case.make(shape)
    specs = [link.spec() for link in chain]
    stored = json.loads(json.dumps(specs, allow_nan=False))
    need(stored == specs, "a spec that JSON changes")
    also = _own_classes(chain)
    twins = [maps.from_spec(spec, also=also) for spec in stored]
    for twin, link in zip(twins, chain, strict=True):
        need(repr(twin) == repr(link), f"{twin!r:.80} for {link!r:.80}")
        need(twin.spec() == link.spec(), f"another spec of {twin!r:.80}")
    host = _assigned(case, shape, dtype)
    again = hosted(twins, torch.randn(shape, dtype=dtype)).eval()
    again.load_state_dict(host.state_dict())
    _need_same(again, host, "from_spec and a state dict")


def _own_classes(chain: Iterable[Parametrization]) -> list[type[Parametrization]]:
    """Return the classes of a chain that are not the library's."""
    classes = {type(part) for link in chain for part in link.modules()}
    return [
        cls
        for cls in classes
        if issubclass(cls, Parametrization)
        and getattr(maps, cls.__name__, None) is not cls
    ]


@law(
    "meta",
    "registration without values, on the meta device",
    "Branch on shapes, never on entries.",
)
def meta(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """A module made on the meta device gets its values from a state dict."""
    with torch.device("meta"):
        host = case.registered(torch.randn(shape, dtype=dtype))
    found = tuple(host.weight.shape)
    need(found == shape, f"a weight of shape {found} for {shape}")
    source = case.registered(torch.randn(shape, dtype=dtype)).eval()
    host.to_empty(device="cpu").eval()
    host.load_state_dict(source.state_dict())
    need_close(host.weight, source.weight, "a loaded weight is", 0.0)


MODULE_LAWS = (registering, optimizer, copies, plain_data, meta)

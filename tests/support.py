"""Small maps and questions that several test files share."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import holdfast


class Sine(nn.Module):
    """A user-written map that counts its evaluations."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[None] = []

    def forward(self, X: Tensor) -> Tensor:
        self.calls.append(None)
        return X.sin()

    def right_inverse(self, W: Tensor) -> Tensor:
        return W.asin()


class Wave(holdfast.Parametrization):
    """A deterministic map that counts its evaluations."""

    deterministic = True

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, X):
        self.calls.append(None)
        return X.sin()

    def right_inverse(self, weight):
        return weight.asin()


def with_sine(module: nn.Module, *names: str) -> nn.Module:
    """Register a counting sine on the named tensors, or on ``weight``."""
    for name in names or ("weight",):
        holdfast.register_parametrization(module, name, Sine())
    return module


def evaluations(module: nn.Module, name: str = "weight") -> int:
    """Tell how often the counting map has run since the last question.

    This looks past the chains, which may take a look at them for the start of a change,
    so that what is remembered is dropped.
    """
    chain = module._modules["parametrizations"]._modules[name]
    calls = chain._modules["0"].calls
    count = len(calls)
    calls.clear()
    return count


def told(error: BaseException | None) -> str:
    """Return what an error says: its message, its notes, and those of its causes."""
    parts: list[str] = []
    while error is not None:
        parts += [str(error), *getattr(error, "__notes__", ())]
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


class Token:
    """Lives as long as the graph node that owns it."""


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, X: Tensor, seen: list[weakref.ref[Token]]) -> Tensor:
        ctx.token = Token()
        seen.append(weakref.ref(ctx.token))
        return 2.0 * X

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return 2.0 * grad, None


class Traced(nn.Module):
    """Doubles; knows how many of the graphs it took part in are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[weakref.ref[Token]] = []

    def forward(self, X: Tensor) -> Tensor:
        return _Double.apply(X, self.seen)

    def alive(self) -> int:
        return sum(token() is not None for token in self.seen)


def links(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the first link of every parametrized tensor of a module."""
    for chain in module.parametrizations.values():
        yield chain[0]


# ---- What a module is, bit for bit -------------------------------------------------


class Is:
    """Equal to another one iff both hold the same object, which it keeps alive."""

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Is) and self.thing is other.thing

    __hash__ = None

    def __repr__(self) -> str:
        return f"<{type(self.thing).__name__} at {id(self.thing):#x}>"


def bits(tensor: Tensor) -> bytes:
    """Return the values of a tensor as raw bytes, so that NaN equals NaN."""
    plain = tensor.detach().resolve_conj().clone(memory_format=torch.contiguous_format)
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def tensor_state(tensor: Tensor | None) -> dict[str, object] | None:
    if tensor is None:
        return None
    return {
        "object": Is(tensor),
        "type": type(tensor),
        "layout": (tensor.dtype, tensor.shape, tensor.stride()),
        "memory": tensor.data_ptr(),
        "requires_grad": tensor.requires_grad,
        "bits": bits(tensor),
        "grad": None if tensor.grad is None else (Is(tensor.grad), bits(tensor.grad)),
        "hooks": list((tensor._backward_hooks or {}).values()),
    }


def hooks_of(module: nn.Module) -> dict[str, list[object]]:
    return {
        name: list(hooks.items())
        for name, hooks in vars(module).items()
        if "_hooks" in name and hasattr(hooks, "items")
    }


def state_of(module: nn.Module) -> dict[str, object]:
    """Return all that a failed change must leave as it was; compare with ``==``."""
    return {
        path: {
            "object": Is(part),
            "class": type(part),
            "training": part.training,
            "hooks": hooks_of(part),
            "parameters": [(k, tensor_state(t)) for k, t in part._parameters.items()],
            "buffers": [(k, tensor_state(t)) for k, t in part._buffers.items()],
            "modules": [(name, Is(child)) for name, child in part._modules.items()],
            "not saved": set(part._non_persistent_buffers_set),
            "attributes": {name for name in vars(part) if name[0] != "_"},
            "flat weights": [Is(w) for w in vars(part).get("_flat_weights", [])],
        }
        for path, part in module.named_modules()
    }


# ---- User-written maps, importable, so that they can be pickled ---------------------


class Symmetric(nn.Module):
    """The tutorial's."""

    def forward(self, X: Tensor) -> Tensor:
        return X.triu() + X.triu(1).mT

    def right_inverse(self, W: Tensor) -> Tensor:
        return W.triu()


class Gain(nn.Module):
    """A map with a parameter and a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("offset", torch.tensor(0.5))

    def forward(self, X: Tensor) -> Tensor:
        return self.gain * X + self.offset

    def right_inverse(self, W: Tensor) -> Tensor:
        return (W - self.offset) / self.gain


class Halves(nn.Module):
    """A weight in two parts; the right inverse returns one tensor twice."""

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        return X + Y

    def right_inverse(self, W: Tensor) -> tuple[Tensor, Tensor]:
        half = W / 2
        return half, half


class OneWay(nn.Module):
    """A map without a right inverse."""

    def forward(self, X: Tensor) -> Tensor:
        return X.tanh()


# ---- The built-ins, one of each kind ------------------------------------------------


def recipes() -> dict[str, Callable[[nn.Module], nn.Module]]:
    """Return every way to call the built-in recipes that makes another chain."""

    def orthogonal(kind: str, trivialized: bool) -> Callable[[nn.Module], nn.Module]:
        return lambda module: holdfast.orthogonal(
            module, orthogonal_map=kind, use_trivialization=trivialized
        )

    made = {
        f"orthogonal {kind}{' with base' * trivialized}": orthogonal(kind, trivialized)
        for kind in ("matrix_exp", "cayley", "householder")
        for trivialized in (True, False)
    }
    return {
        "orthogonal": holdfast.orthogonal,
        **made,
        "orthogonal thin_cayley": lambda module: holdfast.orthogonal(
            module, orthogonal_map="thin_cayley"
        ),
        "weight_norm": holdfast.weight_norm,
        "weight_norm of columns": lambda module: holdfast.weight_norm(module, dim=1),
        "weight_norm of all": lambda module: holdfast.weight_norm(module, dim=None),
        "spectral_norm": holdfast.spectral_norm,
        "spectral_norm of columns": lambda m: holdfast.spectral_norm(m, dim=1),
    }


class Log:
    """A listener of demos that counts."""

    def __init__(self):
        self.name, self.promised, self.done = "", {}, {}

    def started(self, name, updates):
        self.name, self.promised[name], self.done[name] = name, updates, 0

    def updated(self, updates=1):
        self.done[self.name] = self.done.get(self.name, 0) + updates

    def tested(self, result):
        pass


class Drifts(holdfast.Parametrization):
    """Claims to be orthogonal, and leaves the set as its original grows."""

    codomain = holdfast.sets.Stiefel()

    def forward(self, X):
        return X

    def right_inverse(self, X):
        return X

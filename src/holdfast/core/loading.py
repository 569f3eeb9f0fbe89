"""Checkpoints in other spellings, turned into a chain's own before they are loaded.

A plain ``weight`` goes through the right inverses, and so does the value of a legacy
spelling (``weight_g`` and ``weight_v``; ``weight_orig``, ``weight_u`` and ``weight_v``)
that no map takes as it is. What comes out stands in the state dict under the chain's
own keys, and the loading goes on as for any module: strict reporting, ``assign`` and
errors are torch's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ..linalg.matricization import matricize
from ..linalg.norms import rescale
from ..linalg.power import rayleigh
from .chain import ParametrizationList
from .checks import as_tuple, check_assigned, check_dense, check_originals
from .filling import are_ordinary, copied, is_ordinary
from .inversion import bind_again, invert
from .joints import gather
from .parametrization import Parametrization
from .torch_state import no_gradients
from .transaction import Snapshot

State = dict[str, Any]


def respell(
    module: nn.Module, state: State, prefix: str, *, assign: bool, errors: list[str]
) -> None:
    """Put what a state dict says of the parametrized tensors under their own keys."""
    gather(module, state, prefix)
    chains: Any = module._modules.get("parametrizations")
    for name, chain in getattr(chains, "_modules", {}).items():
        kept = _others(module, state, prefix, name)
        try:
            _respell(chain, state, prefix, name, assign=assign)
        except Exception as error:
            errors.append(_told(error, prefix + name))
            for key in (name, *_parts_of(name)):
                state.pop(prefix + key, None)
            chain_keys = f"{prefix}parametrizations.{name}."
            state.update(chain.state_dict(prefix=chain_keys, keep_vars=True))
        state.update(kept)


def _others(module: nn.Module, state: State, prefix: str, name: str) -> State:
    """Take out what looks like a spelling of a tensor, but is another of the module."""
    parts, others = _parts_of(name), State()
    for own in (module._parameters, module._buffers):
        if not own.keys().isdisjoint(parts):
            keys = [prefix + part for part in parts if part in own]
            others |= {key: state.pop(key) for key in keys if key in state}
    return others


def _respell(
    chain: nn.Module, state: State, prefix: str, name: str, *, assign: bool
) -> None:
    path, own = prefix + name, f"{prefix}parametrizations.{name}."
    translate(chain, state, prefix, name)
    if not isinstance(chain, ParametrizationList) or chain._shared:
        return
    value = None if _is_there(chain, state, own) else take(state, path)
    if value is None:
        return
    stateless = all(map(_is_stateless, chain._modules.values()))
    state |= _inverted(chain, value, path, own, assign=assign, stateless=stateless)
    if not stateless:
        translate(chain, state, prefix, name)


def translate(chain: nn.Module, state: State, prefix: str, name: str) -> None:
    """Let the maps rename the keys of older checkpoints."""
    for i, map_ in enumerate(chain._modules.values()):
        if isinstance(map_, Parametrization):
            map_.translate(state, prefix, name, i)


def take(state: State, path: str) -> Any:
    """Take a tensor out of a state dict, plain or spelt as torch did before 2.0."""
    if path in state:
        return state.pop(path)
    parts = {end: state[path + end] for end in _ENDS if path + end in state}
    for ends, value_of in _LEGACY.items():
        if all(isinstance(parts.get(end), Tensor) for end in ends):
            for end in ends:
                check_dense(parts[end], lambda end=end: path + end)
            value = value_of(*(parts[end] for end in ends))
            for end in ends if value is not None else ():
                del state[path + end]
            return value
    return None


def weight_norm_dim(g: Tensor, V: Tensor) -> int | None:
    """Return the dimension that lengths belong to; ``None`` for the whole tensor.

    Raises:
        ValueError: they do not belong to these directions.
    """
    if g.ndim == 0:
        return None
    for dim in range(V.ndim):
        slices = [n if d == dim else 1 for d, n in enumerate(V.shape)]
        if list(g.shape) == slices:
            return dim
    raise ValueError(f"{tuple(g.shape)} are no lengths for {tuple(V.shape)}")


def weight_norm_value(g: Tensor, V: Tensor) -> Tensor | None:
    """Return the weight of a legacy weight norm; ``None`` if it is none."""
    try:
        return rescale(V, g, weight_norm_dim(g, V))
    except ValueError:
        return None


def spectral_norm_dim(W: Tensor, u: Tensor, v: Tensor) -> int | None:
    """Return the dimension of the rows that a pair of singular vectors means.

    Where the sizes leave a choice it is the one with the largest estimate, as the right
    one approaches the maximum. ``None`` if no dimension fits.
    """
    fitting = [
        dim
        for dim, n in enumerate(W.shape)
        if u.shape == (n,) and v.shape == (W.numel() // max(1, n),)
    ]
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    return max(fitting, key=lambda dim: float(rayleigh(matricize(W, dim), u, v).abs()))


def spectral_norm_value(W: Tensor, u: Tensor, v: Tensor) -> Tensor | None:
    """Return the weight of a legacy spectral norm; ``None`` if it is none."""
    dim = spectral_norm_dim(W, u, v)
    return None if dim is None else W / rayleigh(matricize(W, dim), u, v)


_ENDS = ("_g", "_v", "_orig", "_u")
_LEGACY: dict[tuple[str, ...], Callable[..., Tensor | None]] = {
    ("_g", "_v"): weight_norm_value,
    ("_orig", "_u", "_v"): spectral_norm_value,
}


@functools.cache
def _parts_of(name: str) -> tuple[str, ...]:
    return tuple(name + end for end in _ENDS)


def _is_there(chain: ParametrizationList, state: State, own: str) -> bool:
    """Tell whether a state dict has originals, or is not to have any."""
    if own + "original" in state or own + "original0" in state:
        return True
    names = [*chain._parameters, *chain._buffers]
    if any(own + name in state for name in names):
        return True
    return chain._non_persistent_buffers_set.issuperset(names)


def _inverted(
    chain: ParametrizationList,
    value: Any,
    path: str,
    own: str,
    *,
    assign: bool,
    stateless: bool,
) -> State:
    """Return the state of a chain whose value this is; its tensors stay as they are.

    What a map notes in an attribute stays noted, as no state dict has it.
    """
    originals = chain.originals()
    snapshot = Snapshot(chain._modules.values())
    with no_gradients(), snapshot:
        value = _placed(chain, value, originals[0], path, assign=assign)
        new = invert(chain, value, lambda: path, registering=False)
        if not assign:
            new = check_originals(chain, new, originals, lambda: path)
        new = [t.detach() if t.requires_grad else t for t in as_tuple(new)]
        keys = [own + name for name in chain.names()]
        state: State = dict(zip(keys, new, strict=True))
        if not stateless:
            for i, map_ in chain._modules.items():
                map_.state_dict(destination=state, prefix=f"{own}{i}.")
            _detach(state, snapshot)
            snapshot.restore_tensors()
        if not assign and _written(chain, new, originals):
            state.update(zip(keys, originals, strict=True))
    return state


def _written(
    chain: ParametrizationList, new: Sequence[Tensor], originals: Sequence[Tensor]
) -> bool:
    """Give the originals their values, which torch would do in three times the time.

    Those that are under their own keys then are what is to be loaded.
    """
    ordinary = not chain.unsafe and is_ordinary(chain) and are_ordinary(originals)
    return ordinary and copied(zip(originals, new, strict=True))


def _is_stateless(map_: nn.Module) -> bool:
    """Tell whether a map has nothing to save, which spares asking it."""
    return (
        not (map_._parameters or map_._buffers or map_._modules)
        and type(map_).get_extra_state is nn.Module.get_extra_state
        and type(map_)._save_to_state_dict is nn.Module._save_to_state_dict
    )


def _placed(
    chain: ParametrizationList, value: Any, like: Tensor, path: str, *, assign: bool
) -> Tensor:
    """Return a value where the originals are, or bind the maps to where it is."""
    if not isinstance(value, Tensor):
        return check_assigned(chain, value, lambda: path)
    check_dense(value, lambda: path)
    if not chain.unsafe and value.shape != chain.shape:
        raise _SizeMismatch(
            f"size mismatch for {path}: copying a param with shape {value.shape} from "
            f"checkpoint, the shape in current model is {chain.shape}."
        )
    value = value.detach()
    if _is_where(value, like) and not chain.__dict__["_emptied"]:
        return value
    if not assign or (_is_exact(value) and not _is_exact(like)):
        value = check_assigned(chain, _moved(value, like), lambda: path)
    _bind(chain, value, like, path)
    return value


def _bind(chain: ParametrizationList, value: Tensor, like: Tensor, path: str) -> None:
    """Start maps anew where they have no memory, or have it in another place."""
    if chain.__dict__["_emptied"]:
        bind_again(chain, value, lambda: path)
    elif not _is_where(value, like):
        for map_ in chain._modules.values():
            if isinstance(map_, Parametrization):
                map_.bind(value)


def _is_where(value: Tensor, like: Tensor) -> bool:
    return value.dtype is like.dtype and value.device == like.device


def _is_exact(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _moved(value: Tensor, like: Tensor) -> Tensor:
    """Return a value where another tensor is, with its dtype if it is of that kind."""
    if _is_where(value, like):
        return value
    kind = (value.is_complex(), value.is_floating_point())
    same_kind = kind == (like.is_complex(), like.is_floating_point())
    return value.to(like.device, like.dtype if same_kind else None)


def _detach(state: State, snapshot: Snapshot) -> None:
    """Copy what a restored snapshot would write to."""
    held = {id(tensor) for tensor in snapshot.tensors()}
    shared = {tensor.data_ptr() for tensor in snapshot.tensors() if tensor.numel()}
    for key, tensor in state.items():
        if isinstance(tensor, Tensor) and (
            id(tensor) in held or (tensor.numel() and tensor.data_ptr() in shared)
        ):
            state[key] = tensor.clone()


class _SizeMismatch(Exception):
    """The tensor has another shape than the weight."""


def _told(error: Exception, path: str) -> str:
    """Return the message, in torch's words where torch has some."""
    if isinstance(error, _SizeMismatch):
        return str(error)
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return f"While loading `{path}`: {error}{notes}"

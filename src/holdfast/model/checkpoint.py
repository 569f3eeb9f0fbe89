"""A parametrized model as a file, and back: tensors and specs, no pickle."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..core.chain import ParametrizationList
from ..core.checks import check_module
from ..core.parametrization import Parametrization
from ..core.placement import Prepared, attach
from ..core.sharded import is_sharded
from ..errors import CheckpointError
from .header import VERSION, Joined, described, joined_in, read_header
from .rebuilding import rebuilt
from .rollback import undone_as_a_whole
from .storage import bytes_of, unshared, write_tensors
from .stored import Stored, stored
from .workplace import file_at

_WHOLE = " Load `holdfast.plain_state_dict(model)` into a copy that is not sharded."


def save(
    model: nn.Module,
    path: str | Path,
    *,
    max_shard_size: int | str | None = None,
) -> list[Path]:
    """Write a model's tensors, and what parametrizes them, to a safetensors file.

    The header holds the specs of all maps as JSON, so that `load` parametrizes a plain
    model the same way. Nothing is pickled. After a crash there is the old file or the
    new one; what else it leaves, in a folder whose name begins with a dot, is removed
    by the next save to the same path.

    Args:
        model: any module whose maps have specs.
        path: the file, ``"model.safetensors"``.
        max_shard_size: the bytes that a file may have, or ``"5GB"``. A larger model
            becomes several files and ``model.safetensors.index.json``, their index.

    Returns:
        The files, of which an index is the last.

    Raises:
        CheckpointError: a map has no spec, the state dict holds what is no tensor, or
            the file cannot be written.

    Example:
        >>> import tempfile, torch, holdfast
        >>> model = torch.nn.Sequential(holdfast.orthogonal(torch.nn.Linear(3, 3)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = holdfast.save(model, f"{folder}/model.safetensors")
        ...     plain = torch.nn.Sequential(torch.nn.Linear(3, 3))
        ...     again = holdfast.load(f"{folder}/model.safetensors", plain)
        >>> bool((again[0].weight == model[0].weight).all())
        True
    """
    check_module(model, "save")
    limit, path = bytes_of(max_shard_size), file_at(path, "save")
    state = model.state_dict()
    for key, value in (*state.items(), *model.named_parameters()):  # what waits too
        if (
            not isinstance(value, Tensor)
            or value.is_meta
            or nn.parameter.is_lazy(value)
            or value.layout != torch.strided
            or is_sharded(value)
        ):
            raise CheckpointError(
                f"`{key}` cannot be saved: expected a dense tensor with values. "
                f"Got {type(value).__name__}."
                f"{_WHOLE if is_sharded(value) else ''}"
            )
    chains = [described(site, path_) for path_, site in _chains(model).items()]
    tensors, tied = unshared(state)
    header = {"version": VERSION, "chains": chains, "tied": tied}
    header |= {"joined": joined_in(model)}
    return write_tensors(path, tensors, json.dumps(header), limit)


def _chains(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Return each chain by the path of its tensor, the first of several."""
    found = dict[str, nn.ModuleList]()
    for prefix, module in model.named_modules():
        chains: Any = module._modules.get("parametrizations")
        if isinstance(chains, nn.ModuleDict):
            start = f"{prefix}." if prefix else ""
            for name, chain in chains._modules.items():
                found[start + name] = cast("nn.ModuleList", chain)
    return found


def load(
    path: str | Path,
    model: nn.Module | Callable[[], nn.Module],
    *,
    also: Iterable[type[Parametrization]] = (),
) -> nn.Module:
    """Read a model that `save` wrote: parametrize a plain one, and fill it.

    Everything is checked before the model is touched: names, shapes and maps; and if a
    hook of the model fails after that, the model is put back. Only maps of a known
    table are made, so that a file from anywhere can do no harm.

    Args:
        path: the file, or the index of several.
        model: a model of the same layout, plain or parametrized in the same way, or a
            function that makes one. On the meta device it gets the tensors of the file.
        also: classes of your own that the file may name.

    Returns:
        The model.

    Raises:
        CheckpointError: the file cannot be read, or does not fit the model, which then
            is as it was.

    Example:
        >>> import tempfile, torch, holdfast
        >>> model = holdfast.weight_norm(torch.nn.Linear(2, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = holdfast.save(model, f"{folder}/model.safetensors")
        ...     with torch.device("meta"):
        ...         empty = torch.nn.Linear(2, 3)
        ...     layer = holdfast.load(f"{folder}/model.safetensors", empty)
        >>> torch.equal(layer.weight, model.weight)
        True
    """
    made = model() if callable(model) and not isinstance(model, nn.Module) else model
    check_module(made, "load")
    with stored(file_at(path, "load")) as file, torch.random.fork_rng(devices=[]):
        header = read_header(file, tuple(also))
        chains, tied = header.chains, header.tied
        _check_joined(file, made, header.joined)
        new = [rebuilt(file, made, chain) for chain in chains]
        _check_no_others(file, made, {chain.path for chain in chains})
        state = {key: file.tensor(key) for key in file.keys()}  # noqa: SIM118
        state |= {key: state[kept] for key, kept in tied.items()}
        placed = [entry for entry in new if entry is not None]
        _check(file, made, placed, state)
        meta = any(tensor.is_meta for tensor in made.state_dict().values())
        ties = _ties(made) if meta else []
        with undone_as_a_whole(made, [module for module, *_ in placed]):
            attach([Prepared(*each) for each in placed])
            made.load_state_dict(state, assign=meta)
            for names in ties:
                _tie(made, names)
    return made


def _ties(model: nn.Module) -> list[list[str]]:
    """Return which parameters have several names, that assigning would part."""
    names = dict[int, list[str]]()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _tie(model: nn.Module, names: list[str]) -> None:
    """Make one parameter of several again, where they are plain."""
    hosts = [model.get_submodule(name.rpartition(".")[0]) for name in names]
    leaves = [name.rpartition(".")[2] for name in names]
    plain = [
        (host, leaf)
        for host, leaf in zip(hosts, leaves, strict=True)
        if leaf in host._parameters
    ]
    for host, leaf in plain[1:]:
        host._parameters[leaf] = plain[0][0]._parameters[plain[0][1]]


def _check_joined(file: Stored, model: nn.Module, joined: Joined) -> None:
    """Refuse a model whose tensors are not joined as those in the file are."""
    present = joined_in(model)
    for path, (dim, names) in joined.items():
        if present.get(path) != (dim, names):
            prefix, _, name = path.rpartition(".")
            module = f"model.get_submodule({prefix!r})" if prefix else "model"
            raise CheckpointError(
                f"{file.path}: `{path:.200}` is several tensors as one in the file, "
                "and not, or otherwise, in the model. Join them before you load: "
                f"`holdfast.join({module}, {names}, {name!r}, dim={dim})`."
            )


def _check_no_others(file: Stored, model: nn.Module, paths: set[str]) -> None:
    for path in _chains(model):
        if path not in paths:
            raise CheckpointError(
                f"{file.path}: `{path}` is parametrized in the model, and plain in the "
                "file. Give a plain model."
            )


def _check(
    file: Stored,
    model: nn.Module,
    placed: list[tuple[nn.Module, str, ParametrizationList]],
    state: Mapping[str, Tensor],
) -> None:
    """Load everything into copies on which nothing depends, and see what fails."""
    trial = copy.deepcopy(model, _without_values(model))
    twins = dict(zip(map(id, model.modules()), trial.modules(), strict=True))
    with torch.no_grad():
        attach(
            [
                Prepared(twins[id(module)], name, copy.deepcopy(chain))
                for module, name, chain in placed
            ]
        )
    expected = trial.state_dict()
    for key, tensor in state.items():
        kind = _kind(expected.get(key, tensor))
        if _kind(tensor) != kind:
            raise CheckpointError(
                f"{file.path}: `{key}` is {tensor.dtype} and cannot be loaded into "
                f"{expected[key].dtype}."
            )
    try:
        trial.load_state_dict(state, assign=True)
    except Exception as error:
        raise CheckpointError(f"{file.path} does not fit the model: {error}") from error
    empty = {key for key, buffer in model.named_buffers() if buffer.is_meta}
    for key, buffer in trial.named_buffers():
        if buffer.is_meta and key in empty and "parametrizations." not in key:
            raise CheckpointError(
                f"{file.path} has no values for `{key}`, a buffer on the meta device "
                "that is not saved. Make the model on the CPU."
            )


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.is_complex(), tensor.is_floating_point()


def _without_values(model: nn.Module) -> dict[int, Any]:
    """Return the memo that makes a deep copy on the meta device."""
    memo = dict[int, Any]()
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta", requires_grad=False)
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, tensor.requires_grad)
        memo[id(tensor)] = empty
    return memo

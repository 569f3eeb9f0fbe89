"""The chains of a checkpoint, made again without the model that they are from."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..core.chain import ParametrizationList
from ..core.parametrization import Parametrization
from ..errors import CheckpointError
from .evaluating import Found, evaluated
from .header import ChainData, read_header
from .showing import in_one_line
from .stored import Stored, stored


@dataclass(frozen=True)
class StoredChain:
    """A chain in a checkpoint: its tensors are read when it is asked for."""

    path: str
    _file: Stored
    _data: ChainData
    _keys: Mapping[str, str]

    @property
    def maps(self) -> str:
        """The maps, as they print."""
        return in_one_line(self._data.maps)

    def restored(self) -> ParametrizationList:
        """Return the chain with its tensors, in evaluation.

        Raises:
            CheckpointError: the tensors are no such chain's.
            UnknownShapeError: the maps have to know a shape that the file lacks.
            NotFiniteError: the maps cannot compute with its values.
        """
        inner = {name: self._file.tensor(key) for name, key in self._keys.items()}
        names = sorted(
            (name for name in inner if name.startswith("original")),
            key=lambda name: (len(name), name),
        )
        if not names:
            raise CheckpointError(f"{self._file.path}: `{self.path}` has no original.")
        originals = [inner.pop(name) for name in names]
        maps, shape = self._data.maps, self._data.weight_shape
        found = Found(self.path, "holdfast", maps, originals, inner, shape)
        with torch.random.fork_rng(devices=[]):
            value = evaluated(found)
        links = nn.ModuleList(found.maps).eval()
        links.__dict__.update(
            is_tensor=names == ["original"], ntensors=len(names), unsafe=True
        )
        for name, tensor in zip(names, originals, strict=True):
            links.register_buffer(name, tensor)
        return ParametrizationList.of_torchs(links, value.shape)


@contextmanager
def stored_chains(
    path: Path, also: Iterable[type[Parametrization]] = ()
) -> Generator[list[StoredChain]]:
    """Open a file that `holdfast.save` wrote, and return the chains in it.

    Raises:
        CheckpointError: the file cannot be read, or has no specs.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(stored(path))
        header = read_header(file, tuple(also))
        keys = {**{key: key for key in file.keys()}, **header.tied}  # noqa: SIM118
        inside = _inside([chain.path for chain in header.chains], keys)
        yield [
            StoredChain(chain.path, file, chain, inside[chain.path])
            for chain in sorted(header.chains, key=lambda chain: _natural(chain.path))
        ]


def _inside(paths: Iterable[str], keys: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the keys of each chain by what they are called in it."""
    found = dict[str, dict[str, str]]()
    own = dict[str, dict[str, str]]()
    for path in paths:
        prefix, dot, name = path.rpartition(".")
        found[path] = own[f"{prefix}{dot}parametrizations.{name}"] = {}
    for key, kept in keys.items():
        parts = key.split(".")
        for i in range(2, len(parts)):
            start = ".".join(parts[:i]) if parts[i - 2] == "parametrizations" else ""
            if start in own:
                own[start][".".join(parts[i:])] = kept
    return found


def _natural(path: str) -> list[tuple[int, str]]:
    """Return what puts layer 10 after layer 9."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in path.split(".")
    ]

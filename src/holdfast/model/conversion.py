"""Checkpoints from one spelling into another, without the model.

Note [Spellings]
    ``plain`` has the weights; ``torch`` has the originals of the parametrizations that
    torch has, under torch's keys; ``holdfast`` has these keys too, and the specs of the
    maps in the header; ``legacy`` has what torch's older functions wrote, ``weight_g``
    and ``weight_v``, or ``weight_orig``, ``weight_u`` and ``weight_v``. What a state
    dict does not tell is not guessed: torch's three orthogonal maps leave the same
    keys, so that without specs they cannot be told apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..core.loading import spectral_norm_dim, weight_norm_dim
from ..core.parametrization import Parametrization
from ..errors import CheckpointError
from ..maps.norm import SpectralNorm, WeightNorm
from ..maps.orthogonal import Orthogonal
from .evaluating import MARK, Found, NotFiniteError, Spelling, evaluated
from .header import VERSION, ChainData, Header, choices_of, described, read_header
from .noting import UnknownShapeError
from .showing import in_one_line
from .storage import unshared, write_tensors
from .stored import index_of, stored
from .workplace import file_at, write_whole

SPELLINGS: tuple[Spelling, ...] = get_args(Spelling)


@dataclass(frozen=True)
class Converted:
    """What became of one tensor: printed, a line of the table."""

    tensor: str
    maps: str
    source: str
    target: str
    keys: tuple[str, ...]

    def data(self) -> dict[str, object]:
        """Return the line as data."""
        return asdict(self)


def convert_state(
    state: Mapping[str, Tensor],
    to: Spelling,
    chains: Mapping[str, ChainData],
) -> tuple[dict[str, Tensor], dict[str, list[Parametrization]], list[Converted]]:
    """Return a state in another spelling, the maps of its tensors, and what was done.

    Args:
        state: tensors by name.
        to: the spelling to write.
        chains: what a header says, by the path of the tensor.

    Raises:
        CheckpointError: a tensor cannot be spelt so, or its maps cannot be told.
    """
    found, rest = _find(dict(state), chains)
    result, specs, report = dict[str, Tensor](), dict[str, list[Parametrization]](), []
    for each in found:
        try:
            new = _spelt(each, to)
        except (NotFiniteError, UnknownShapeError) as error:
            raise CheckpointError(
                f"`{each.path}` cannot be evaluated: {error}"
            ) from error
        result |= new
        maps = in_one_line(each.maps)
        report.append(Converted(each.path, maps, each.spelling, to, tuple(new)))
        if to == "holdfast":
            specs[each.path] = each.maps
    for key in sorted(result.keys() & rest.keys()):
        raise CheckpointError(f"`{key}` is there twice: plain, and parametrized.")
    report += [Converted(key, "", "plain", "plain", (key,)) for key in rest]
    return {**rest, **result}, specs, report


def _find(
    state: dict[str, Tensor], chains: Mapping[str, ChainData]
) -> tuple[list[Found], dict[str, Tensor]]:
    """Take the parametrized tensors out of a state."""
    found = list[Found]()
    for key in [*state]:
        if key not in state:
            continue
        prefix, mark, end = key.rpartition(MARK)
        if mark and end.rpartition(".")[2].startswith("original"):
            path = prefix + end.rpartition(".")[0]
            found.append(_of_torch(state, path, chains.get(path)))
        elif key.endswith("_g") and f"{key[:-2]}_v" in state:
            g, V = state.pop(key), state.pop(f"{key[:-2]}_v")
            map_ = WeightNorm(_lengths(key[:-2], g, V))
            found.append(Found(key[:-2], "legacy", [map_], [g, V], {}))
        elif key.endswith("_orig") and f"{key[:-5]}_u" in state:
            found.append(_legacy_spectral_norm(state, key[:-5]))
    return found, state


def _of_torch(state: dict[str, Tensor], path: str, chain: ChainData | None) -> Found:
    prefix, _, name = path.rpartition(".")
    own = f"{prefix}.{MARK}{name}." if prefix else f"{MARK}{name}."
    inner = {k.removeprefix(own): state.pop(k) for k in [*state] if k.startswith(own)}
    names = sorted(
        (k for k in inner if k.startswith("original")), key=lambda k: int(k[8:] or 0)
    )
    originals = [inner.pop(k) for k in names]
    if chain is None:
        return Found(path, "torch", _told(path, originals, inner), originals, inner)
    return Found(path, "holdfast", chain.maps, originals, inner, chain.weight_shape)


def _told(
    path: str, originals: list[Tensor], buffers: Mapping[str, Tensor]
) -> list[Parametrization]:
    """Return the map of torch's that a chain's tensors belong to."""
    if len(originals) == 2 and not buffers:
        return [WeightNorm(_lengths(path, *originals))]
    if len(originals) == 1 and {*buffers} == {"0._u", "0._v"}:
        vectors = buffers["0._u"], buffers["0._v"]
        return [SpectralNorm(dim=_rows(path, originals[0], *vectors))]
    raise CheckpointError(
        f"`{path}`: the keys do not tell which map this is. Torch's orthogonal maps "
        "leave the same ones. Save the model with `holdfast.save`, which says it."
    )


def _lengths(path: str, g: Tensor, V: Tensor) -> int | None:
    try:
        return weight_norm_dim(g, V)
    except ValueError as error:
        raise CheckpointError(f"`{path}`: {error}.") from None


def _rows(path: str, W: Tensor, u: Tensor, v: Tensor) -> int:
    dim = spectral_norm_dim(W, u, v)
    if dim is None:
        raise CheckpointError(
            f"`{path}`: tensors of shapes {tuple(u.shape)} and {tuple(v.shape)} are no "
            f"singular vectors of one of {tuple(W.shape)}."
        )
    return dim


def _legacy_spectral_norm(state: dict[str, Tensor], path: str) -> Found:
    if f"{path}_v" not in state:
        raise CheckpointError(
            f"`{path}`: there is no `{path}_v`. Checkpoints of torch before 1.1 lack "
            "it: load this one there, and save it again."
        )
    W, u, v = (state.pop(f"{path}_{end}") for end in ("orig", "u", "v"))
    map_ = SpectralNorm(dim=_rows(path, W, u, v))
    return Found(path, "legacy", [map_], [W], {"0._u": u, "0._v": v})


def _spelt(found: Found, to: Spelling) -> dict[str, Tensor]:
    """Return the tensors of one weight in a spelling."""
    if to == "plain":
        return {found.path: evaluated(found)}
    if to == "legacy":
        return _legacy(found)
    torchs = (WeightNorm, SpectralNorm, Orthogonal)
    if to == "torch" and not (
        len(found.maps) == 1 and isinstance(found.maps[0], torchs)
    ):
        raise CheckpointError(
            f"`{found.path}`: torch has no {found.maps}. Convert it to plain."
        )
    prefix, _, name = found.path.rpartition(".")
    own = f"{prefix}.{MARK}{name}." if prefix else f"{MARK}{name}."
    names = ["original"]
    if len(found.originals) > 1 or isinstance(found.maps[0], WeightNorm):
        names = [f"original{i}" for i in range(len(found.originals))]
    pairs = zip(names, found.originals, strict=True)
    tensors = {own + name: tensor for name, tensor in pairs}
    return tensors | {own + key: tensor for key, tensor in found.buffers.items()}


def _legacy(found: Found) -> dict[str, Tensor]:
    map_ = found.maps[0]
    if len(found.maps) == 1 and isinstance(map_, WeightNorm):
        ends = dict(zip(("g", "v"), found.originals, strict=True))
    elif len(found.maps) == 1 and isinstance(map_, SpectralNorm) and found.buffers:
        u, v = found.buffers["0._u"], found.buffers["0._v"]
        ends = {"orig": found.originals[0], "u": u, "v": v}
    else:
        raise CheckpointError(
            f"`{found.path}`: torch's older functions have no "
            f"{in_one_line(found.maps)}. Convert it to plain."
        )
    return {f"{found.path}_{end}": tensor for end, tensor in ends.items()}


def convert_file(
    source: str | Path, target: str | Path, to: Spelling
) -> list[Converted]:
    """Translate a checkpoint into another spelling, and say what was done.

    Args:
        source: a safetensors file, the index of several, or a file of `torch.save`,
            which is read with ``weights_only=True``.
        target: ``.safetensors``, or ``.pt``, ``.pth`` or ``.bin``, which torch writes;
            the spelling of holdfast takes the former, for its header.
        to: ``"plain"``, ``"torch"``, ``"holdfast"`` or ``"legacy"``.

    Raises:
        CheckpointError: a file cannot be read or written, or a tensor cannot be spelt
            so. Nothing is written then.
    """
    source, target = file_at(source, "convert"), file_at(target, "convert")
    if to not in SPELLINGS:
        raise CheckpointError(
            f"Expected one of {', '.join(SPELLINGS)}. Got {to!r:.80}."
        )
    if target.exists() and source.exists() and target.samefile(source):
        raise CheckpointError(
            f"{target}: is the file that is read, and would be lost. Write another one."
        )
    torchs = target.suffix in (".pt", ".pth", ".bin")
    if not torchs and target.suffix != ".safetensors":
        raise CheckpointError(
            f"{target}: expected a name that ends in .safetensors, .pt, .pth or .bin."
        )
    if torchs and to == "holdfast":
        raise CheckpointError(f"{target}: holdfast writes .safetensors files.")
    state, said = _read(source)
    chains = {chain.path: chain for chain in said.chains}
    new, maps, report = convert_state(state, to, chains)
    if torchs:
        write_whole(target, lambda part: torch.save(new, part))
        return report
    tensors, shared = unshared(new)
    header = None
    if to == "holdfast":
        ties = {key: kept for key, kept in said.tied.items() if kept in tensors}
        described_ = [
            described(nn.ModuleList(ms), path) | choices_of(chains.get(path))
            for path, ms in maps.items()
        ]
        about = {"version": VERSION, "chains": described_, "tied": ties | shared}
        header = json.dumps(about | {"joined": said.joined})
    else:
        tensors |= {key: tensors[kept].clone() for key, kept in shared.items()}
    write_tensors(target, tensors, header, float("inf"))
    return report


def _read(path: Path) -> tuple[dict[str, Tensor], Header]:
    """Return tensors, and what a header says of them."""
    if not index_of(path).exists() and _is_torchs(path):
        return _read_torchs(path), Header([], {}, {})
    with stored(path) as file:
        state = {key: file.tensor(key) for key in sorted(file.keys())}
        said = Header([], {}, {}) if file.header is None else read_header(file, ())
        return state, said


def _is_torchs(path: Path) -> bool:
    """Tell whether a file is a zip or a pickle, as torch writes them."""
    try:
        with path.open("rb") as file:
            return file.read(2) in (b"PK", b"\x80\x02")
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from error


def _read_torchs(path: Path) -> dict[str, Tensor]:
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as tensors alone. Expected a state dict, saved by "
            "`torch.save(model.state_dict(), ...)`. Found something else in it, or a "
            "file that is broken."
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, no state dict.")
    for key, value in loaded.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: `{key!s:.200}` is no tensor.")
    return dict(loaded)

"""Orthogonal weights in one table, beside torch and GeoTorch.

How long a read takes and how long with its gradient, in milliseconds, beside torch and
in products of the same size, and how much memory it needs. On a CUDA device also how
often the host waits, and how long the replay of a CUDA graph takes. The claims that
must hold are in files of their own; this table is for seeing all at a glance:

    python -m benchmarks.orthogonal --write
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import holdfast
from holdfast.maps.grassmann import Horizontal, HorizontalMap

from .device import captured, clock, kept, peak, waits
from .machine import FOLDER, facts, version_of
from .reporting import OURS, TORCHS, Report, table, time_text
from .timing import QUICK, Comparison, Contestant, Effort, compare
from .weights import (
    GEOTORCH,
    PRODUCT,
    Holder,
    Maker,
    geotorchs,
    makers,
    moved,
    ours,
    product,
)

RESULTS = FOLDER / "results" / "orthogonal.md"
FORWARD, REPLAY = " forward", " replay"
EFFORT = Effort(rounds=15, block=0.004, most=3.0)
KINDS = ("matrix_exp", "cayley", "householder")
TRIVIALIZATIONS: dict[HorizontalMap, str] = {
    "matrix_exp": "expm",
    "cayley": "cayley",
}
SQUARE = (64, 128, 256, 512)
THIN = ((256, 64), (512, 128), (1024, 64))
SUBSPACES = ((64, 64), (256, 32), (512, 128))
COLUMNS = (
    "weight, map",
    "library",
    "forward",
    "with gradient",
    "quartiles",
    "/ first",
    "quartiles",
    "products forward",
    "products",
    "kept",
    "peak",
)
ON_DEVICE = ("waits", "replay")
METHOD = """\
`layer.weight` ("forward") and `layer.weight.backward(G)` ("with gradient"), float32.
Coordinates are normal with variance 1/n or 2/n around a base, which makes skew matrices
of norm 2 to 3. Times are medians over blocks that the contestants run in turns;
"/ first" is the median, over the rounds, of the ratio to the first library of the same
weight, with the gradient. "products" is a time in products of the weight's size,
X @ S, measured in the same rounds. "kept" are the parameters and buffers, and "peak" is
the most that a read and its gradient hold beside them, in copies of the weight.
"""
METHOD_ON_DEVICE = """\
"waits" is how often the host waits for the device in a read and its gradient, "replay"
how long a CUDA graph of the two takes, where the host never waits.
"""


@dataclass(frozen=True)
class Subject:
    """A weight, and the ways to it that are compared; the first is the base."""

    name: str
    shape: tuple[int, ...]
    made: dict[str, Maker]
    missing: Sequence[str] = ()


@dataclass
class Bench:
    """Where and how long to measure, and what came of it.

    Args:
        effort: how long.
        device: ``"cpu"`` or ``"cuda"``.
        threads: those that torch may use on a processor.
    """

    effort: Effort
    device: str = "cpu"
    threads: int = 1
    report: Report = field(init=False)

    def __post_init__(self) -> None:
        cuda = self.device == "cuda"
        columns = [*COLUMNS, *(ON_DEVICE if cuda else ())]
        setting = METHOD + (METHOD_ON_DEVICE if cuda else "")
        self.report = Report("Orthogonal weights", columns, setting)

    def contestant(self, name: str, statement: str, **names: Any) -> Contestant:
        ticks = clock(self.device, self.threads)
        return Contestant(name, statement, names, clock=ticks, threads=self.threads)

    def add(self, subject: Subject) -> None:
        """Add the rows of a subject."""
        G = torch.randn(subject.shape, device=self.device)
        entries = [
            Entry.of(name, make, G, self.device) for name, make in subject.made.items()
        ]
        base = product(subject.shape)
        factors = {name: X.to(self.device) for name, X in base.names.items()}
        contestants = [self.contestant(PRODUCT, base.statement, **factors)]
        for entry in entries:
            contestants += entry.contestants(self)
        found = compare(contestants, self.effort)
        first = entries[0].name
        for entry in entries:
            self.report.rows.append(
                [subject.name, entry.name, *entry.cells(found, first, self.device)]
            )
        for name in subject.missing:
            blank = [""] * (len(self.report.columns) - 3)
            self.report.rows.append([subject.name, name, "not installed", *blank])
        self.report.raw[subject.name] = found.seconds


@dataclass(frozen=True)
class Entry:
    """One library's way to a weight."""

    name: str
    layer: nn.Module
    G: Tensor
    memory: tuple[float, float]
    waits: int | None = None

    @classmethod
    def of(cls, name: str, make: Maker, G: Tensor, device: str) -> Entry:
        layer = moved(make(Holder(tuple(G.shape)))).to(device)
        memory = kept(layer) / G.nbytes, peak(layer, G) / G.nbytes
        entry = cls(name, layer, G, memory)
        return replace(entry, waits=waits(entry.step)) if device == "cuda" else entry

    def step(self) -> None:
        """Read the weight and go back."""
        self.layer.weight.backward(self.G)

    def contestants(self, bench: Bench) -> Iterator[Contestant]:
        read = partial(bench.contestant, layer=self.layer, G=self.G)
        yield read(self.name, "layer.weight.backward(G)")
        yield read(self.name + FORWARD, "layer.weight")
        if self.waits is not None and (graph := captured(self.step)) is not None:
            yield bench.contestant(self.name + REPLAY, "graph.replay()", graph=graph)

    def cells(self, found: Comparison, first: str, device: str) -> Iterator[str]:
        whole, forward = found.spread(self.name), found.spread(self.name + FORWARD)
        ratio = found.ratios(self.name, first)
        yield time_text(forward.median)
        yield time_text(whole.median)
        yield f"{time_text(whole.low)} .. {time_text(whole.high)}"
        yield f"{ratio.median:.3g}"
        yield f"{ratio.low:.3g} .. {ratio.high:.3g}"
        yield f"{found.ratios(self.name + FORWARD, PRODUCT).median:.1f}"
        yield f"{found.ratios(self.name, PRODUCT).median:.1f}"
        yield from (f"{copies:.1f}" for copies in self.memory)
        if device == "cuda":
            yield str(self.waits)
            replay = self.name + REPLAY
            there = replay in found.seconds
            yield time_text(found.spread(replay).median) if there else "no"


def square(shape: tuple[int, ...], kind: str) -> Subject:
    """Return one of torch's maps in all libraries."""
    name = f"{' x '.join(map(str, shape))}, {kind}"
    if kind not in TRIVIALIZATIONS:
        return Subject(name, shape, makers(kind))
    theirs = geotorchs("orthogonal", triv=TRIVIALIZATIONS[kind])
    return Subject(name, shape, {**makers(kind), **theirs}, absent(theirs))


def thin(n: int, k: int) -> Subject:
    """Return all maps of all libraries, of which torch's default is the first."""
    made = {f"{TORCHS} householder": makers("householder")[TORCHS]}
    for kind in ("cayley", "matrix_exp"):
        made[f"{TORCHS} {kind}"] = makers(kind)[TORCHS]
    for kind in ("thin_cayley", "thin_matrix_exp"):
        made[f"{OURS} {kind}"] = partial(holdfast.orthogonal, orthogonal_map=kind)
    theirs = geotorchs("orthogonal", triv="expm")
    return Subject(f"{n} x {k}", (n, k), {**made, **theirs}, absent(theirs))


def subspace(n: int, k: int, kind: HorizontalMap) -> Subject:
    """Return the maps of subspaces, which torch lacks."""
    theirs = geotorchs("grassmannian", triv=TRIVIALIZATIONS[kind])
    name = f"{n} x {k} subspace, {kind}"
    return Subject(
        name, (n, k), {**theirs, OURS: ours(Horizontal(kind))}, absent(theirs)
    )


def absent(theirs: dict[str, Maker]) -> Sequence[str]:
    """Return the name of the other library if there is none of its maps."""
    return () if theirs else (GEOTORCH,)


def subjects(*, quick: bool) -> Iterator[Subject]:
    """Return everything that is in the table."""
    for n in (8,) if quick else SQUARE:
        yield from (square((n, n), kind) for kind in KINDS)
    for n, k in ((8, 2),) if quick else THIN:
        yield thin(n, k)
    batch = (2, 4, 4) if quick else (64, 32, 32)
    yield from (square(batch, kind) for kind in KINDS)
    for n, k in ((8, 2),) if quick else SUBSPACES:
        yield from (subspace(n, k, kind) for kind in TRIVIALIZATIONS)
    rotations = (10, 3, 3) if quick else (10_000, 3, 3)
    yield from (square(rotations, kind) for kind in KINDS[:2])


def page(report: Report, device: str, threads: int) -> str:
    """Return the table with what it was measured on."""
    found = [*facts(), ("geotorch", version_of(GEOTORCH)), ("threads", str(threads))]
    if device == "cuda":
        found.append(("device", torch.cuda.get_device_name()))
    body = table(report.columns, report.rows)
    head = table(["machine", ""], [list(fact) for fact in found])
    return f"# {report.claim}\n\n{head}\n\n{report.setting}\n{body}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="benchmarks.orthogonal", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest weights")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here. Leave it out.")
    bench = Bench(QUICK if options.quick else EFFORT, options.device, options.threads)
    for subject in subjects(quick=options.quick):
        bench.add(subject)
    text = page(bench.report, options.device, options.threads)
    print(text)
    if options.write:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()

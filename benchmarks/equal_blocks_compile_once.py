"""Equal parametrized blocks share one compiled graph (I1).

Each block is compiled by itself, as one does with the layers of a transformer. Torch
gives every parametrized module a class of its own, so each costs a graph, until the
limit of recompilations is reached and the rest runs uncompiled.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch._dynamo
from torch import Tensor, nn

from .reporting import OURS, Report, main
from .subjects import LIBRARIES, MODES, RECIPES, Symmetric
from .timing import Effort

BLOCKS = 12


class Block(nn.Module):
    """A block whose weight may be parametrized."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x))


class Counter:
    """A backend that compiles nothing and counts graphs and their runs."""

    def __init__(self) -> None:
        self.graphs = 0
        self.runs = 0

    def __call__(self, graph: Any, _: object) -> Any:
        self.graphs += 1

        def run(*inputs: Any) -> Any:
            self.runs += 1
            return graph.forward(*inputs)

        return run


def count(make: Any, mode: Any, blocks: int) -> tuple[int, int]:
    """Return the graphs compiled, and how many blocks ran a graph the second time."""
    torch._dynamo.reset()
    logging.getLogger("torch._dynamo").setLevel(
        logging.ERROR
    )  # limits are no news here
    counter = Counter()
    compiled = [torch.compile(make(Block()), backend=counter) for _ in range(blocks)]
    for _ in range(2):
        counter.runs = 0
        with mode():
            # An input without gradients would cost plain blocks a second graph, too.
            x = torch.randn(4, 16, requires_grad=mode is MODES["gradients on"])
            for block in compiled:
                block(x)
    torch._dynamo.reset()
    logging.getLogger("torch._dynamo").setLevel(logging.NOTSET)
    return counter.graphs, counter.runs


def plain(block: Block) -> Block:
    return block


def symmetric(library: Any) -> Any:
    """Return what gives a block the tutorial's map."""

    def parametrized(block: Block) -> Block:
        library.register_parametrization(block.linear, "weight", Symmetric())
        return block

    return parametrized


def weight_normed(library: Any) -> Any:
    """Return what gives a block weight normalization."""

    def parametrized(block: Block) -> Block:
        library.weight_norm(block.linear)
        return block

    return parametrized


def measure(effort: Effort) -> Report:
    """Count the graphs that `torch.compile` makes of equal blocks."""
    blocks = 2 if effort.quick else BLOCKS
    claim = "Equal parametrized blocks compile once"
    setting = f"{blocks} equal blocks, each compiled by itself, run twice."
    columns = ["case", "contestant", "graphs", "blocks that ran a graph", "target"]
    report = Report(claim, columns, setting)
    cases = {
        "Symmetric": {name: symmetric(lib) for name, lib in LIBRARIES.items()},
        "weight_norm": {name: weight_normed(lib) for name, lib in RECIPES.items()},
    }
    settings = [(case, mode) for mode in MODES for case in cases]
    for case, mode in settings[:1] if effort.quick else settings:
        for name, make in {"plain": plain, **cases[case]}.items():
            graphs, runs = count(make, MODES[mode], blocks)
            verdict = ""
            if name == OURS:
                verdict = report.judge(f"{case}, {mode}", graphs, 1, " graph")
            row = [f"{case}, {mode}", name, str(graphs), f"{runs} of {blocks}", verdict]
            report.rows.append(row)
    return report


if __name__ == "__main__":
    main(measure)

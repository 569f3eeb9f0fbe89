"""A thin orthogonal weight costs at most ten copies of itself in memory.

Counted are the tensors that the layer keeps, and the most that one read and its
gradient hold beside them at any time.
"""

from __future__ import annotations

import torch
from torch import nn

import holdfast

from .device import kept, peak
from .reporting import OURS, TORCHS, Report, main
from .timing import Effort
from .weights import Maker, makers, moved

TARGET = 10.0
MAKERS: dict[str, Maker] = {
    OURS: lambda layer: holdfast.orthogonal(layer, orthogonal_map="thin_cayley"),
    f"{OURS} thin_matrix_exp": lambda layer: holdfast.orthogonal(
        layer, orthogonal_map="thin_matrix_exp"
    ),
    TORCHS: makers("householder")[TORCHS],
}


def measure(effort: Effort) -> Report:
    """Count the memory of a read of an 8192 x 16 weight, forward and backward."""
    n, k = (64, 4) if effort.quick else (8192, 16)
    claim = f"A thin orthogonal weight costs at most {TARGET:g} copies of itself"
    columns = ["contestant", "kept, copies", "read, copies", "together", "target"]
    setting = f"`layer.weight.backward(G)`, float32, {n} x {k}; torch's profiler."
    report = Report(claim, columns, setting)
    G = torch.randn(n, k)
    for name, make in MAKERS.items():
        layer = moved(make(nn.Linear(k, n, bias=False)))
        parts = [size / G.nbytes for size in (kept(layer), peak(layer, G))]
        verdict = ""
        if name != TORCHS:
            verdict = report.judge(f"{n} x {k}: {name}", sum(parts), TARGET, " copies")
        texts = [f"{part:.1f}" for part in (*parts, sum(parts))]
        report.rows.append([name, *texts, verdict])
        report.raw[name] = parts
    return report


if __name__ == "__main__":
    main(measure)

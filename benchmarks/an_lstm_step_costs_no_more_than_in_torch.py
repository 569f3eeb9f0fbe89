"""A recurrent layer reads each parametrized weight once per forward (R3)."""

from __future__ import annotations

import torch
from torch import nn

from .reporting import Report, add, main, times_report
from .subjects import LIBRARIES, MODES, Identity
from .timing import Contestant, Effort, compare


def lstm(library: object = None) -> nn.LSTM:
    """Return a layer whose recurrent kernel is parametrized, if there is a library."""
    layer = nn.LSTM(16, 16)
    if library is not None:
        library.register_parametrization(layer, "weight_hh_l0", Identity())
    return layer


def measure(effort: Effort) -> Report:
    """Time one step of an LSTM."""
    claim = "A step of an LSTM costs no more than in torch"
    setting = "`nn.LSTM(16, 16)`, recurrent kernel through an identity, on (1, 4, 16)."
    report = times_report(claim, "torch", setting)
    x = torch.randn(1, 4, 16)
    for case, mode in MODES.items():
        contestants = [
            Contestant(name, "layer(x)", {"layer": lstm(library), "x": x}, mode)
            for name, library in {**LIBRARIES, "plain": None}.items()
        ]
        add(report, case, compare(contestants, effort), target=1.0)
    return report


if __name__ == "__main__":
    main(measure)

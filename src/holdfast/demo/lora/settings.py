"""What a run of the demo can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """One budget, which all ways to adapt share.

    Attributes:
        epochs: passes over the training set, for the network and for each way.
        runs: networks that each figure is the mean of.
        seed: decides the split, and with the run's number the weights and the order.
        threads: threads that torch computes with.
    """

    epochs: int = 15
    runs: int = 3
    seed: int = 0
    threads: int = 1


FULL = Settings()
QUICK = Settings(epochs=4, runs=1)

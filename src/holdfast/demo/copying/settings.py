"""What a run of the demo can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """One budget, which all networks share.

    Attributes:
        lengths: numbers T of steps between the symbols and their recall.
        updates: optimizer steps, each with sequences that were never seen before.
        hidden: hidden units of the recurrent networks, and half as many of the LSTM,
            which has four kernels: all have equally many recurrent weights.
        seed: decides the sequences and the initial weights.
        threads: threads that torch computes with; more than one seldom pays here.
        batch: sequences per optimizer step.
        rate: RMSprop's largest learning rate.
        recurrent_rate: the same for the original of the orthogonal kernel.
        clip: largest norm of the gradient of all parameters together.
    """

    lengths: tuple[int, ...] = (100, 200, 1000)
    updates: int = 200
    hidden: int = 190
    seed: int = 0
    threads: int = 1
    batch: int = 32
    rate: float = 4e-3
    recurrent_rate: float = 2e-4
    clip: float = 1.0


FULL = Settings()
QUICK = Settings(lengths=(30,), updates=80)

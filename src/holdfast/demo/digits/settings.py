"""What a run of the demo can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """One budget, which all networks share.

    Attributes:
        hidden: number of hidden units, so that the recurrent kernel is hidden x hidden.
        steps: length of a sequence: 8 rows of pixels, and noise for the rest.
        epochs: passes over the training set.
        seed: decides the split, the noise, the initial weights and the order.
        threads: threads that torch computes with; more than one seldom pays here.
        batch: sequences per optimizer step.
        rate: Adam's largest learning rate.
        recurrent_rate: the same for the recurrent kernel or its original.
        clip: largest norm of the gradient of all parameters together.
    """

    hidden: int = 128
    steps: int = 150
    epochs: int = 8
    seed: int = 0
    threads: int = 1
    batch: int = 64
    rate: float = 5e-3
    recurrent_rate: float = 5e-4
    clip: float = 1.0


FULL = Settings()
QUICK = Settings(hidden=32, steps=40, epochs=3)

"""What a run of the demo can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """One budget, which both networks share.

    Attributes:
        epochs: passes over the training set.
        hidden: units of each of the two hidden layers, in pairs.
        margin: how far the right logit should be above the others.
        radii: lengths of the changes that all test images are attacked with.
        restarts: starts of each attack: the image itself, then random ones.
        steps: gradient steps of each start.
        seed: decides the split, the order, the weights and the attack's starts.
        threads: threads that torch computes with.
        batch: images per optimizer step.
        rate: Adam's largest learning rate.
    """

    epochs: int = 60
    hidden: int = 128
    margin: float = 1.0
    radii: tuple[float, ...] = tuple(k / 10 for k in range(1, 13))
    restarts: int = 5
    steps: int = 40
    seed: int = 0
    threads: int = 1
    batch: int = 64
    rate: float = 5e-3


FULL = Settings()
QUICK = Settings(epochs=10, hidden=32, radii=(0.25, 0.5, 1.0), restarts=2, steps=10)

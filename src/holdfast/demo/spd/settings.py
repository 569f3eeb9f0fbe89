"""What a run of the demo can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """One budget, which all ways share.

    Attributes:
        steps: optimizer steps for each way and learning rate.
        seed: decides the start.
        threads: threads that torch computes with.
    """

    steps: int = 500
    seed: int = 0
    threads: int = 1


FULL = Settings()
QUICK = Settings(steps=60)

"""What a run of the demo can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The sizes of both problems, and when to give up.

    Attributes:
        pixels: side of a patch; the principal components have pixels x pixels entries.
        components: number of principal components.
        size: dimension of the two clouds of points, and so of the rotation.
        steps: optimizer steps that each way has with each learning rate.
        seconds: the time that it has.
        seed: decides the points, the rotation and the starts.
        threads: threads that torch computes with.
    """

    pixels: int = 12
    components: int = 16
    size: int = 64
    steps: int = 2000
    seconds: int = 5
    seed: int = 0
    threads: int = 1


FULL = Settings()
QUICK = Settings(pixels=6, components=6, size=16, steps=400, seconds=1)

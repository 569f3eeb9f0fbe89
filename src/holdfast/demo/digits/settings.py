"""What a run of the demo can be told."""

from __future__ import annotations

from dataclasses import dataclass, replace

PIXELS = 64  # of an image


@dataclass(frozen=True)
class Settings:
    """One budget, which all networks share.

    Attributes:
        hidden: number of hidden units, so that the recurrent kernel is hidden x hidden.
        steps: length of a sequence: the image, and noise for the rest.
        pixels: how many pixels of the 64 enter per step: 8, a row, or 1.
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
    pixels: int = 8
    epochs: int = 8
    seed: int = 0
    threads: int = 1
    batch: int = 64
    rate: float = 5e-3
    recurrent_rate: float = 5e-4
    clip: float = 1.0

    @property
    def image_steps(self) -> int:
        """The number of steps that the image takes."""
        return PIXELS // self.pixels


FULL = Settings()
QUICK = Settings(hidden=32, steps=40, epochs=3)
PIXELWISE = Settings(steps=PIXELS, pixels=1, epochs=40, recurrent_rate=1e-3)
QUICK_PIXELWISE = replace(PIXELWISE, hidden=32, epochs=3)

"""scikit-learn's handwritten digits as sequences with a long, noisy end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .settings import PIXELS

CLASSES = 10
CHANCE = 1 / CLASSES
_TESTED = 0.2  # the share of the 1797 images that is never trained on


@dataclass(frozen=True)
class Digits:
    """Images, shape ``(steps, samples, pixels per step)``, and what they show."""

    images: Tensor
    labels: Tensor

    def padded(self, steps: int, generator: torch.Generator) -> Tensor:
        """Return the images followed by noise, so many steps in all.

        The noise is uniform over the range of the pixels, -0.5 to 0.5.
        """
        first, *shape = self.images.shape
        noise = torch.rand(steps - first, *shape, generator=generator) - 0.5
        return torch.cat([self.images, noise])


def load_split(seed: int, pixels: int = 8) -> tuple[Digits, Digits]:
    """Return digits to train on and digits to test on, equally many of each class.

    So many of the 64 pixels of an image make a step.
    """
    from sklearn import datasets, model_selection

    # scikit-learn has no types: all that follows is arrays.
    bunch: Any = datasets.load_digits()
    parts: list[Any] = model_selection.train_test_split(
        bunch.data.reshape(-1, PIXELS // pixels, pixels) / 16 - 0.5,
        bunch.target,
        test_size=_TESTED,
        random_state=seed,
        stratify=bunch.target,
    )
    images, tested_images, labels, tested_labels = map(torch.from_numpy, parts)
    return _digits(images, labels), _digits(tested_images, tested_labels)


def _digits(images: Tensor, labels: Tensor) -> Digits:
    return Digits(images.float().transpose(0, 1).contiguous(), labels.long())

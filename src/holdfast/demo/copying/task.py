"""The sequences, and how well a network recalls them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SYMBOLS, LETTERS = 10, 8  # symbols to remember, each one of so many letters
BLANK, MARKER = 0, LETTERS + 1
INPUTS, OUTPUTS = LETTERS + 2, LETTERS + 1  # the marker is never an answer


def sequences(
    length: int, samples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return inputs and the right answers, both ``(length + 20, samples)``.

    Ten letters come first, then blanks; a marker after ``length`` steps asks for the
    letters, in their order. The right answer to everything before is a blank.
    """
    letters = torch.randint(1, LETTERS + 1, (SYMBOLS, samples), generator=generator)
    blanks = torch.full((length + SYMBOLS, samples), BLANK)
    inputs = torch.cat([letters, blanks])
    inputs[length + SYMBOLS - 1] = MARKER
    return inputs, torch.cat([blanks, letters])


def baseline(length: int) -> float:
    """Return the cross entropy of guessing the letters, once it is time for them."""
    return SYMBOLS * math.log(LETTERS) / (length + 2 * SYMBOLS)


def cross_entropy(logits: Tensor, answers: Tensor) -> Tensor:
    """Return the mean over steps and samples, in nats."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), answers.flatten())


def recall(logits: Tensor, answers: Tensor) -> float:
    """Return the share of letters that are right, of the last ten steps alone."""
    right = logits[-SYMBOLS:].argmax(2) == answers[-SYMBOLS:]
    return right.double().mean().item()

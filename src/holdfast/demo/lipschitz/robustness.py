r"""How far an image may be changed: proven from below, and sought from above.

If no distance grows by more than L on its way to the logits, the difference of two of
them changes by at most √2 L times the length of a change, and the answer is the same up
to

.. math::
    r = \frac{f_y(x) - \max_{j \ne y} f_j(x)}{\sqrt 2\, L}
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how far each right logit is above the largest other one."""
    right = nn.functional.one_hot(labels, logits.shape[1]).bool()
    others = logits.masked_fill(right, -math.inf).amax(1)
    return logits[right] - others


def certified_radii(
    network: nn.Module, images: Tensor, labels: Tensor, bound: float
) -> Tensor:
    """Return the radius that is proven for each image, 0 where the answer is wrong.

    Args:
        network: it maps images to logits.
        images: ``(samples, pixels)``.
        labels: the right answers.
        bound: the Lipschitz constant L; a smaller one than the true one proves nothing.
    """
    with torch.no_grad():
        return margins(network(images), labels).clamp(min=0) / (math.sqrt(2) * bound)


def is_fooled(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    radii: Tensor,
    restarts: int,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Return which images have a wrong answer within a radius, as far as one is found.

    Projected gradient descent on the margin, from the image and from random points;
    pixels may leave their range, since the proof allows it too.

    References:
        Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks,
        2018, https://arxiv.org/abs/1706.06083
    """
    radii = radii.unsqueeze(1)
    fooled = torch.zeros(len(images), dtype=torch.bool)
    for restart in range(restarts):
        noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
        change = _shortened(noise, radii) if restart else torch.zeros_like(images)
        for step in range(steps + 1):
            change.requires_grad_()
            margin = margins(network(images + change), labels)
            fooled |= margin < 0
            (gradient,) = torch.autograd.grad(margin.sum(), change)
            # Long steps first, to leave a valley; short ones at last, to reach its end.
            rate = radii * (1 - step / (steps + 1))
            direction = gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1e-12)
            change = _shortened(change.detach() - rate * direction, radii)
    return fooled


def _shortened(change: Tensor, radii: Tensor) -> Tensor:
    """Return each change with at most the length that is allowed."""
    length = change.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return change * (radii / length).clamp(max=1)

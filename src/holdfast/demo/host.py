"""What a demo trains that is about a matrix alone."""

from __future__ import annotations

from torch import Tensor, nn


class Host(nn.Module):
    """A module with one weight, a matrix or a batch of them."""

    weight: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.clone())

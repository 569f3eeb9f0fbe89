"""Problems over orthonormal matrices that have a closed solution."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

_POINTS_PER_DIMENSION = 4
_NOISE = 0.5  # standard deviation, as a share of the points' own


@dataclass(frozen=True)
class Problem:
    """A loss, a start, and what the best matrix is.

    Attributes:
        name: as the table has it.
        solver: what finds the best matrix at once.
        loss: of a matrix with orthonormal columns.
        start: where every way begins.
        best: a matrix of smallest loss.
        seconds: the time that the solver took.
    """

    name: str
    solver: str
    loss: Callable[[Tensor], Tensor]
    start: Tensor
    best: Tensor
    seconds: float

    def share_left(self, loss: float) -> float:
        """Return how much is left of the distance from the start's loss to the best."""
        start, best = self._ends
        return (loss - best) / (start - best)

    @cached_property
    def _ends(self) -> tuple[float, float]:
        return self.loss(self.start).item(), self.loss(self.best).item()


def principal_components(pixels: int, components: int, seed: int) -> Problem:
    r"""Return the search for the subspace that explains most of the patches' variance.

    .. math::
        \min_{W^T W = I} -\mathrm{tr}(W^T C W) / \mathrm{tr}(C)
    """
    X = patches(pixels)
    C = X.T @ X
    C = C / C.trace()
    begin = time.perf_counter()
    best = torch.linalg.eigh(C).eigenvectors[:, -components:].flip(1)
    seconds = time.perf_counter() - begin
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(len(C), components, generator=generator, dtype=C.dtype)
    start = torch.linalg.qr(X).Q.contiguous()

    def loss(W: Tensor) -> Tensor:
        return -(W * (C @ W)).sum()

    return Problem("PCA", "eigh", loss, start, best, seconds)


def procrustes(size: int, seed: int) -> Problem:
    r"""Return the search for the rotation that takes one cloud of points to another.

    .. math::
        \min_{Q^T Q = I} \|A Q - B\|^2 / \|A\|^2 = c - 2 \langle Q, A^T B \rangle

    The second cloud is the first one, turned, with noise. The start is the identity.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (_POINTS_PER_DIMENSION * size, size)
    A = torch.randn(shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    X = torch.randn(size, size, generator=generator, dtype=torch.float64)
    hidden = torch.linalg.qr(X).Q
    # From the identity only rotations can be reached, and no reflection.
    hidden[:, 0] *= torch.linalg.det(hidden).sign()
    B = A @ hidden + _NOISE * noise
    scale, constant = A.square().sum(), 1 + B.square().sum() / A.square().sum()
    S = 2 * A.T @ B / scale
    begin = time.perf_counter()
    U, _, Vh = torch.linalg.svd(S)
    best = U @ Vh
    seconds = time.perf_counter() - begin

    def loss(Q: Tensor) -> Tensor:
        return constant - (Q * S).sum()

    start = torch.eye(size, dtype=torch.float64)
    return Problem("Procrustes", "svd", loss, start, best, seconds)


def patches(pixels: int) -> Tensor:
    """Return square patches of scikit-learn's two photographs, gray, of mean zero."""
    from sklearn import datasets

    bunch: Any = datasets.load_sample_images()  # scikit-learn has no types
    images = [torch.from_numpy(image.astype("float64")) for image in bunch.images]
    gray = torch.stack(images).mean(-1)
    stride = max(1, pixels // 2)
    cut = gray.unfold(1, pixels, stride).unfold(2, pixels, stride)
    X = cut.reshape(-1, pixels * pixels)
    return X - X.mean(1, keepdim=True)

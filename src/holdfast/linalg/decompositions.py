"""Spectra, each computed once where several sets ask for that of one matrix."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

Kept = list[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]]

_KEPT = ContextVar[Kept | None]("kept", default=None)


@contextmanager
def shared() -> Generator[None]:
    """Compute each spectrum once inside, for matrices that are equal.

    Comparing takes as long as reading them, a decomposition hundreds of times longer.

    Example:
        >>> import torch
        >>> W = torch.diag(torch.tensor([3.0, 4.0]))
        >>> with shared():
        ...     print(singular_values(W) is singular_values(W.clone()))
        True
        >>> singular_values(W) is singular_values(W)
        False
    """
    token = _KEPT.set([])
    try:
        yield
    finally:
        _KEPT.reset(token)


def singular_values(W: Tensor) -> Tensor:
    """Return the singular values, largest first.

    Shape: ``(*batch, n, k) -> (*batch, min(n, k))``, real.

    Example:
        >>> import torch
        >>> singular_values(torch.diag(torch.tensor([3.0, -4.0])))
        tensor([4., 3.])
    """
    return _once(torch.linalg.svdvals, W)


def eigenvalues(W: Tensor) -> Tensor:
    """Return the eigenvalues of square matrices, in no order.

    Shape: ``(*batch, n, n) -> (*batch, n)``, complex.

    Example:
        >>> import torch
        >>> eigenvalues(torch.diag(torch.tensor([3.0, -4.0])))
        tensor([ 3.+0.j, -4.+0.j])
    """
    return _once(torch.linalg.eigvals, W)


def hermitian_eigenvalues(H: Tensor) -> Tensor:
    """Return the eigenvalues of Hermitian matrices, smallest first.

    Shape: ``(*batch, n, n) -> (*batch, n)``, real.

    Example:
        >>> import torch
        >>> hermitian_eigenvalues(torch.diag(torch.tensor([3.0, -4.0])))
        tensor([-4.,  3.])
    """
    return _once(torch.linalg.eigvalsh, H)


def _once(spectrum: Callable[[Tensor], Tensor], W: Tensor) -> Tensor:
    kept = _KEPT.get()
    if kept is None:
        return spectrum(W)
    for known, X, found in kept:
        same = known is spectrum and X.shape == W.shape and X.dtype == W.dtype
        if same and X.device == W.device and torch.equal(X, W):
            return found
    found = spectrum(W)
    kept.append((spectrum, W.clone(), found))
    return found

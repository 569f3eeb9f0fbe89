"""The functions that make orthonormal columns, each beside another way to the same.

A family takes coordinates X, n x k, to a matrix with orthonormal columns. The other way
is slow, in double precision and by other means: eigenvectors, LU with pivots, LAPACK's
reflections. What torch does with the same coordinates is a third.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from holdfast import linalg

REAL = (torch.float32, torch.float64)
ALL = (*REAL, torch.complex64, torch.complex128)


def wide(X: Tensor) -> Tensor:
    return linalg.double(X)


class Exponential(torch.autograd.Function):
    r"""The exponential of skew matrices by eigenvectors, and its gradient.

    With eigenvalues :math:`i\theta` the divided differences of exp are
    :math:`e^{i(\theta_j + \theta_k)/2}\, \mathrm{sinc}((\theta_j - \theta_k)/2)`.
    """

    @staticmethod
    def forward(ctx, A: Tensor) -> Tensor:
        angles, V = torch.linalg.eigh(-1j * A)
        ctx.save_for_backward(angles, V)
        E = (V * (1j * angles).exp()) @ V.mH
        return E if A.is_complex() else E.real

    @staticmethod
    def backward(ctx, G: Tensor) -> Tensor:
        angles, V = ctx.saved_tensors
        mean = (angles[:, None] + angles) / 2
        half = (angles[:, None] - angles) / 2
        quotients = (-1j * mean).exp() * torch.sinc(half / math.pi)
        slope = V @ (quotients * (V.mH @ G.to(V.dtype) @ V)) @ V.mH
        return slope if G.is_complex() else slope.real


def solved(A: Tensor) -> Tensor:
    """Return the Cayley transform as torch computes it."""
    identity = torch.eye(A.shape[-1], dtype=A.dtype)
    return torch.linalg.solve(identity - A / 2, identity + A / 2)


def reflected(X: Tensor) -> Tensor:
    """Return a product of reflections as torch computes it."""
    V = X.tril(-1) + torch.eye(*X.shape[-2:], dtype=X.dtype)
    return torch.linalg.householder_product(V, 2 / (V * V).sum(-2))


def filled(X: Tensor) -> Tensor:
    """Return the square skew matrix that coordinates stand for."""
    return linalg.lower_skew(pad(X, (0, X.shape[-2] - X.shape[-1])))


def parts(X: Tensor) -> tuple[Tensor, Tensor]:
    k = X.shape[-1]
    return linalg.lower_skew(X[..., :k, :]), X[..., k:, :]


def base_of(X: Tensor) -> Tensor:
    """Return a base point, the same for the same shape and type."""
    generator = torch.Generator().manual_seed(7)
    W = torch.randn(X.shape[-2:], dtype=wide(X).dtype, generator=generator)
    return linalg.positive_qr(W).to(X.dtype)


def tangent(X: Tensor) -> Tensor:
    """Return coordinates around the base, as large as X is around the identity."""
    Omega, K = parts(X)
    full = linalg.complete(wide(base_of(X))).to(X.dtype)
    return full @ torch.cat([Omega / 2, K], -2)


def around(transform: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the map around the base, by a square transform."""

    def value(X: Tensor) -> Tensor:
        k, full = X.shape[-1], linalg.complete(base_of(X))
        return full @ transform(filled(X))[..., :k]

    return value


def columns(transform: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda X: transform(filled(X))[..., : X.shape[-1]]


@dataclass(frozen=True)
class Family:
    """A function of coordinates, another way to the same, and torch's."""

    name: str
    ours: Callable[[Tensor], Tensor]
    exact: Callable[[Tensor], Tensor]  # once differentiable, in double precision
    torchs: Callable[[Tensor], Tensor]
    square: bool = False
    dtypes: tuple[torch.dtype, ...] = ALL

    def __str__(self) -> str:
        return self.name


_EXACT, _CAYLEY = Exponential.apply, columns(solved)

FAMILIES = (
    Family(
        "exponential",
        lambda X: linalg.skew_exponential(filled(X)),
        columns(_EXACT),
        columns(torch.matrix_exp),
        square=True,
    ),
    Family(
        "cayley",
        lambda X: linalg.cayley_transform(filled(X)),
        _CAYLEY,
        _CAYLEY,
        square=True,
    ),
    Family(
        "cayley at a base",
        lambda X: linalg.cayley_transform(filled(X), base_of(X)),
        lambda X: base_of(X) @ solved(filled(X)),
        lambda X: base_of(X) @ solved(filled(X)),
        square=True,
    ),
    Family("thin cayley", lambda X: linalg.thin_cayley(*parts(X)), _CAYLEY, _CAYLEY),
    Family("thin cayley, lower", linalg.thin_cayley_lower, _CAYLEY, _CAYLEY),
    Family(
        "thin cayley at a base",
        lambda X: linalg.thin_cayley_at(tangent(X), base_of(X)),
        around(solved),
        around(solved),
    ),
    Family(
        "thin exponential",
        lambda X: linalg.thin_exponential(*parts(X)),
        columns(_EXACT),
        columns(torch.matrix_exp),
    ),
    Family(
        "thin exponential, lower",
        linalg.thin_exponential_lower,
        columns(_EXACT),
        columns(torch.matrix_exp),
    ),
    Family(
        "thin exponential at a base",
        lambda X: linalg.thin_exponential_at(tangent(X), base_of(X)),
        around(_EXACT),
        around(torch.matrix_exp),
    ),
    Family("reflections", linalg.reflections, reflected, reflected, dtypes=REAL),
)


# ---- Coordinates --------------------------------------------------------------------

NORMS = (0.0, 1e-30, 1e-8, 1e-3, 0.5, 3.0, math.pi, 30.0, 100.0)
STRUCTURES = ("dense", "one plane", "rank one", "equal angles", "sparse", "graded")


def coordinates(
    structure: str, n: int, k: int, dtype: torch.dtype, seed: int
) -> Tensor:
    """Return coordinates of a structure, in double precision, of any norm."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, k, dtype=dtype, generator=generator)
    if structure == "one plane":
        X[2:], X[:, 1:] = 0, 0
    elif structure == "rank one":  # the skew matrix has rank two
        X = X[:, :1] @ X[:1].conj()
    elif structure == "equal angles":
        X = torch.diag_embed(torch.ones(n - 1, dtype=dtype), -1)[:, :k]
        X[:, 1::2] = 0
    elif structure == "sparse":
        X = X * (torch.rand(n, k, generator=generator) < 2 / n)
    elif structure == "graded":  # entries of very different sizes
        X = X * torch.logspace(0, -8, n, dtype=torch.float64)[:, None]
    return X


def scaled(X: Tensor, size: float, dtype: torch.dtype) -> Tensor:
    """Return coordinates whose skew matrix has this spectral norm, or zero."""
    norm = float(torch.linalg.matrix_norm(filled(X), 2)) if size else 0.0
    return (X * (size / norm if norm else 0.0)).to(dtype)

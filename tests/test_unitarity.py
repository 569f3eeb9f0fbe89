"""Rounding errors that add up in a few directions are found and mended."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from holdfast import linalg
from holdfast.linalg import unitarity


def corner(n: int) -> torch.Tensor:
    X = torch.zeros(n, n)
    X[n // 2 :, : n // 2] = 1
    return X


def blocks(n: int) -> torch.Tensor:
    X, q = torch.zeros(n, n), n // 4
    X[q : 2 * q, :q], X[3 * q :, 2 * q : 3 * q], X[3 * q :, :q] = 1, -1, 0.5
    return X


def alternating(n: int) -> torch.Tensor:
    signs = (-1.0) ** torch.arange(n)
    return torch.outer(signs, signs).tril(-1)


def last_row(n: int) -> torch.Tensor:
    X = torch.zeros(n, n)
    X[-1, :-1] = 1
    return X


def of_rank_two(n: int) -> torch.Tensor:
    u, v = torch.randn(2, n, generator=torch.Generator().manual_seed(0))
    return (torch.outer(u, v) - torch.outer(v, u)).tril(-1)


STRUCTURED = [corner, blocks, alternating, last_row, of_rank_two]
SIZES = [3.0, 5.0, 20.0]


def scaled(L: torch.Tensor, size: float, dtype=torch.float32) -> torch.Tensor:
    """Return a lower triangle whose skew matrix has a norm, of equal entries still."""
    return (L * (size / torch.linalg.matrix_norm(L - L.mT, 2))).to(dtype)


def off(Q: torch.Tensor) -> float:
    Q = linalg.double(Q)
    one = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return float(torch.linalg.matrix_norm(Q.mH @ Q - one, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", STRUCTURED)
def test_structured_matrices_have_orthogonal_transforms(make, size, dtype):
    for n in (128, 512) if dtype == torch.float32 else (128,):
        L = scaled(make(n), size, dtype)
        A = linalg.double(L - L.mH)
        one = torch.eye(n, dtype=A.dtype)
        wanted = torch.linalg.solve(one - A / 2, one + A / 2).to(dtype)
        for Q in (
            linalg.cayley_transform_lower(L),
            linalg.cayley_transform(L - L.mH),
            linalg.cayley_transform(torch.stack([L - L.mH] * 2))[1],
        ):
            assert off(Q) < 1e-5
            assert_close(Q, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", STRUCTURED)
def test_structured_matrices_have_orthonormal_columns(make, size):
    X = scaled(make(512), size)[:, :384].contiguous()
    Q = linalg.thin_cayley_lower(X)
    assert off(Q) < 1e-5
    base = torch.linalg.qr(torch.randn(512, 384))[0]
    assert off(linalg.thin_cayley_at(X, base)) < 1e-5


def test_negative_control_errors_add_up_where_nobody_looks(monkeypatch):
    L = scaled(corner(512), 10.0)
    monkeypatch.setattr(unitarity, "_far_from_unitary", lambda Q: False)
    assert off(linalg.cayley_transform_lower(L)) > 2e-5
    assert off(linalg.thin_cayley_lower(L[:, :256].contiguous())) > 1e-5


def test_ordinary_matrices_are_computed_once(monkeypatch):
    calls: list[torch.dtype] = []

    def counted(X: torch.Tensor) -> torch.Tensor:
        calls.append(X.dtype)
        return linalg.cayley_transform_lower(X)

    X = torch.randn(256, 256).tril(-1) / 8  # of norm 4
    unitarity.settled(counted)(X)
    assert calls == [torch.float32]
    unitarity.settled(lambda X: counted(X) * 1.001)(X)  # negative control
    assert calls == [torch.float32] * 2 + [torch.float64]


def test_what_is_not_finite_stays_so():
    X = torch.full((80, 80), torch.nan)
    assert linalg.cayley_transform_lower(X).isnan().any()

"""Closed forms for the rotations of the plane and of 3-space."""

from __future__ import annotations

import torch
from torch import Tensor

# Of the series in x² < 1: what they leave out is below 1e-9 and 1e-19
_SINGLE_TERMS, _DOUBLE_TERMS = 5, 9


def plane_rotation(A: Tensor) -> Tensor:
    r"""Return the exponential of a real skew 2 x 2 matrix, by its angle.

    .. math::
        \exp \begin{pmatrix} 0 & a \\ -a & 0 \end{pmatrix}
        = \begin{pmatrix} \cos a & \sin a \\ -\sin a & \cos a \end{pmatrix}

    Shape: ``(*batch, 2, 2) -> (*batch, 2, 2)``.

    Example:
        >>> import torch
        >>> A = torch.tensor([[0.0, torch.pi], [-torch.pi, 0.0]])
        >>> plane_rotation(A).round()
        tensor([[-1., -0.],
                [ 0., -1.]])
    """
    a = (A[..., 0, 1] - A[..., 1, 0]) / 2
    cos, sin = a.cos(), a.sin()
    return torch.stack([cos, sin, -sin, cos], -1).unflatten(-1, (2, 2))


def space_rotation(A: Tensor) -> Tensor:
    r"""Return the exponential of a real skew 3 x 3 matrix, by Rodrigues' formula.

    .. math::
        \exp(A) = \cos\theta\, I + \frac{\sin\theta}{\theta} A
            + \frac{1 - \cos\theta}{\theta^2} w w^T

    with the axis w of A and :math:`\theta = \|w\|`. The coefficients are smooth
    functions of :math:`\theta^2`, evaluated as series for small angles, so that
    derivatives of every order exist at zero.

    Shape: ``(*batch, 3, 3) -> (*batch, 3, 3)``.

    Example:
        >>> import torch
        >>> space_rotation(torch.zeros(3, 3))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    x, y, z = ((A[..., i, j] - A[..., j, i]) / 2 for i, j in ((2, 1), (0, 2), (1, 0)))
    square = x * x + y * y + z * z
    cos, sinc, versed = _coefficients(square)
    vx, vy, vz = versed * x, versed * y, versed * z
    sx, sy, sz = sinc * x, sinc * y, sinc * z
    xy, xz, yz = vx * y, vx * z, vy * z
    rows = [cos + vx * x, xy - sz, xz + sy]
    rows += [xy + sz, cos + vy * y, yz - sx]
    rows += [xz - sy, yz + sx, cos + vz * z]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _coefficients(square: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return cos x, sin(x)/x and (1 - cos x)/x² from x²."""
    small = square < 1
    inner, outer = torch.where(small, square, 0), torch.where(small, 1, square)
    sinc, versed = torch.ones_like(inner), torch.ones_like(inner)
    terms = _DOUBLE_TERMS if square.dtype == torch.float64 else _SINGLE_TERMS
    for j in range(terms, 0, -1):
        sinc = 1 - sinc * inner / (2 * j * (2 * j + 1))
        versed = 1 - versed * inner / ((2 * j + 1) * (2 * j + 2))
    angle = outer.sqrt()
    half = (angle / 2).sin()
    sinc = torch.where(small, sinc, angle.sin() / angle)
    versed = torch.where(small, versed / 2, 2 * half * half / outer)
    return 1 - square * versed, sinc, versed

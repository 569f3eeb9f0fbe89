r"""Closed forms for the rotations of the plane and of 3-space.

Note [Turning a base]
    A product of many small matrices costs more than the rotations themselves. So a base
    B is turned entry by entry: with :math:`[w]_\times` = A, each of its rows b becomes

    .. math::
        \cos\theta\, b + \frac{\sin\theta}{\theta} b A
            + \frac{1 - \cos\theta}{\theta^2} (b \cdot w)\, w.

    For the value Q, :math:`dQ = Q [J\, dw]_\times` with

    .. math::
        J = \frac{\sin\theta}{\theta} I - \frac{1 - \cos\theta}{\theta^2} [w]_\times
            + \frac{1 - \sin\theta / \theta}{\theta^2} w w^T,

    so that the gradient of w is :math:`J^T \sum g \times q` over the rows g of the
    cotangent and q of Q. All that is done with one tensor for each column.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .closed_form import Tensors, closed_form
from .structure import lower_skew

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
    cos, sinc, versed, _ = _coefficients(x * x + y * y + z * z)
    vx, vy, vz = versed * x, versed * y, versed * z
    sx, sy, sz = sinc * x, sinc * y, sinc * z
    xy, xz, yz = vx * y, vx * z, vy * z
    rows = [cos + vx * x, xy - sz, xz + sy]
    rows += [xy + sz, cos + vy * y, yz - sx]
    rows += [xz - sy, yz + sx, cos + vz * z]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


class _Turned:
    @staticmethod
    def forward(X: Tensor, base: Tensor) -> tuple[Tensor]:
        x, y, z = _axis(X)
        cos, sinc, versed, _ = _coefficients(x * x + y * y + z * z)
        b0, b1, b2 = _columns(base)
        along = versed * (b0 * x).addcmul(b1, y).addcmul(b2, z)
        sx, sy, sz = sinc * x, sinc * y, sinc * z
        q0 = (cos * b0).addcmul(along, x).addcmul(b1, sz).addcmul(b2, sy, value=-1)
        q1 = (cos * b1).addcmul(along, y).addcmul(b2, sx).addcmul(b0, sz, value=-1)
        q2 = (cos * b2).addcmul(along, z).addcmul(b0, sy).addcmul(b1, sx, value=-1)
        return (_matrix(q0, q1, q2),)

    @staticmethod
    def keep(inputs: tuple[Tensor, Tensor], outputs: tuple[Tensor]) -> Tensors:
        return (*inputs, *outputs)

    @staticmethod
    def vjp(
        kept: tuple[Tensor, Tensor, Tensor], needs: tuple[bool, bool], G: Tensor
    ) -> Tensors:
        X, _, Q = kept
        gX = gbase = None
        if needs[0]:
            (q0, q1, q2), (g0, g1, g2) = _columns(Q), _columns(G)
            u = (g1 * q2).addcmul(g2, q1, value=-1).sum(0)
            v = (g2 * q0).addcmul(g0, q2, value=-1).sum(0)
            w = (g0 * q1).addcmul(g1, q0, value=-1).sum(0)
            gX = _triangle(*_times_slope(X, (u, v, w), 1))
        if needs[1]:
            gbase = G @ space_rotation(lower_skew(X)).mT
        return gX, gbase

    @staticmethod
    def jvp(
        kept: tuple[Tensor, Tensor, Tensor], dX: Tensor | None, dbase: Tensor | None
    ) -> Tensors:
        X, _, Q = kept
        dQ = torch.zeros_like(Q)
        if dX is not None:
            moved = _times_slope(X, _axis(dX), -1)
            dQ = Q @ lower_skew(_triangle(*moved))
        if dbase is not None:
            dQ = dQ + dbase @ space_rotation(lower_skew(X))
        return (dQ,)


_turned = closed_form(_Turned)


def turned(X: Tensor, base: Tensor) -> Tensor:
    r"""Return :math:`B \exp(L - L^T)` for the lower triangle L of a real 3 x 3 matrix.

    See Note [Turning a base].

    Shape: ``(*batch, 3, 3), (*batch, 3, 3) -> (*batch, 3, 3)``; the base may lack
        leading dimensions.

    Example:
        >>> import torch
        >>> torch.equal(turned(torch.zeros(3, 3), torch.ones(3, 3)), torch.ones(3, 3))
        True
    """
    return _turned(X, base.expand_as(X))


def _axis(X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the axis of the skew matrix of a lower triangle."""
    return X[..., 2, 1].contiguous(), -X[..., 2, 0], X[..., 1, 0].contiguous()


def _triangle(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Return the lower triangle with a given axis."""
    none = torch.zeros_like(x)
    rows = [none, none, none, z, none, none, -y, x, none]
    # not unflattened: `vmap` as gradcheck uses it has no rule for that
    return torch.stack(rows, -1).reshape(*x.shape, 3, 3)


def _columns(X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the columns, with the rows in front and the batch behind."""
    x, y, z = X.movedim((-1, -2), (0, 1)).contiguous()
    return x, y, z


def _matrix(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.stack([x, y, z]).movedim((0, 1), (-1, -2)).contiguous()


def _times_slope(
    X: Tensor, u: tuple[Tensor, Tensor, Tensor], sign: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return J^T u, or J u for the sign -1. See Note [Turning a base]."""
    x, y, z = _axis(X)
    a, b, c = u
    _, sinc, versed, cubed = _coefficients(x * x + y * y + z * z)
    versed, along = sign * versed, cubed * (a * x).addcmul(b, y).addcmul(c, z)
    i = (y * c).addcmul(z, b, value=-1)
    j = (z * a).addcmul(x, c, value=-1)
    k = (x * b).addcmul(y, a, value=-1)
    return (
        (sinc * a).addcmul(versed, i).addcmul(along, x),
        (sinc * b).addcmul(versed, j).addcmul(along, y),
        (sinc * c).addcmul(versed, k).addcmul(along, z),
    )


def _coefficients(square: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return cos x, sin(x)/x, (1 - cos x)/x² and (1 - sin(x)/x)/x² from x²."""
    small = square < 1
    inner, outer = torch.where(small, square, 0), torch.where(small, 1, square)
    one = torch.ones_like(inner)
    sinc = versed = third = one
    terms = _DOUBLE_TERMS if square.dtype == torch.float64 else _SINGLE_TERMS
    for j in range(terms, 0, -1):
        third = sinc
        sinc = one.addcmul(sinc, inner, value=-1 / (2 * j * (2 * j + 1)))
        versed = one.addcmul(versed, inner, value=-1 / ((2 * j + 1) * (2 * j + 2)))
    angle = outer.sqrt()
    half = (angle / 2).sin()
    far = angle.sin() / angle
    third = torch.where(small, third / 6, (1 - far) / outer)
    sinc = torch.where(small, sinc, far)
    versed = torch.where(small, versed / 2, 2 * half * half / outer)
    return 1 - square * versed, sinc, versed, third

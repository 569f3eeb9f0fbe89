r"""Polynomials for the exponential of skew matrices, as products of few matrices.

Note [Programs]
    A polynomial is a list of steps. Beginning with the basis :math:`(A)`, each one
    adds a product of two combinations, and a third combination, of what is there:

    .. math::
        B_{m+1} = \sum_i b_i B_i + \Big(\sum_i u_i B_i\Big) \Big(\sum_i v_i B_i\Big).

    The last one is the value, :math:`\exp(A) - I`. No step contains the identity:
    adding n small products to a large diagonal is what costs digits in the usual form.

Note [Intervals]
    A is normal with an imaginary spectrum, so the error in the spectral norm is that of
    the scalar polynomial on :math:`i[-\theta, \theta]`. There a Chebyshev expansion of
    degree m is :math:`2^m` times better than a Taylor series, but beyond it explodes:
    the norm has to be bounded from above. A larger A is halved s times, and the result
    squared, as :math:`\exp(2A) - I = 2D + D^2` for :math:`D = \exp(A) - I`.

    ====== ======== ===================== ================================
    degree products :math:`\theta`        error of the value, of the slope
    ====== ======== ===================== ================================
    4      2        0.08 (single)         1.7e-9, 5.3e-7
    8      3        1.0 (single)          1.1e-8, 8.5e-7
    12     4        2.8 (single)          2.3e-8, 1.3e-6
    12     4        0.5 (double)          4.8e-18, 1.6e-15
    ====== ======== ===================== ================================

    The slope is worst at the end of the interval, and ten times better inside.

References:
    Bader, Blanes, Casas and Seydaoğlu, An Efficient Algorithm to Compute the
    Exponential of Skew-Hermitian Matrices, 2021, https://arxiv.org/abs/2103.10132
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

Row = tuple[float, ...]


class Step(NamedTuple):
    """One product of a program, see Note [Programs]; rows may be short."""

    added: Row
    left: Row
    right: Row


@dataclass(frozen=True)
class Program:
    """A polynomial, and the norm up to which it is one of the exponential."""

    limit: float
    steps: tuple[Step, ...]


def _degree_12(limit: float, k: Row, r: Row, left: Row, out: Row) -> Program:
    steps = (
        Step((), (1.0,), (1.0,)),  # A²
        Step((), (0.0, 1.0), (1.0,)),  # A³
        Step(r, k, k),
        Step(out, (*left, 1.0), (0.0, 0.0, 0.0, 1.0)),
    )
    return Program(limit, steps)


SINGLE = (
    Program(
        0.08,
        (
            Step((), (1.0,), (1.0,)),
            Step(
                (0.99999989335608661, 0.4999999680056884),
                (0.0, 1.0),
                (0.16660001066571857, 0.041653335110975668),
            ),
        ),
    ),
    Program(
        1.0,
        (
            Step((), (1.0,), (1.0,)),
            Step((), (0.0, 1.0), (0.10461919276006633, 0.026246185209736941)),
            Step(
                (0.99999990524943393, 0.49999997362171768, 0.55004185482913271),
                (0.0, 0.66256216525458575, 1.0),
                (0.16469468443454989, 0.015092515943963566, 0.035016001384638251),
            ),
        ),
    ),
    _degree_12(
        2.8,
        (-0.16147740954600604, -0.019276415427985857, -0.0065081394658218197),
        (0.077303283844149891, 0.072532606777184495, 0.0046399702982671562),
        (1.1016893084764999, 0.03676803801834622, 0.013170239176232021),
        (
            0.57340882689339999,
            -0.13529679005385376,
            -0.020015877569585513,
            5.5184081183684364,
        ),
    ),
)

DOUBLE = (
    _degree_12(
        0.5,
        (-0.13279639882635544, -0.020246075153068258, -0.0067513975339938089),
        (0.091147280392080162, 0.089800213889707152, 0.0054331918717544287),
        (1.1252072739168554, 0.018667493672894253, 0.012410002184564837),
        (
            0.46822162653214577,
            -0.23767340009205237,
            -0.038577287951159365,
            5.8342758136101296,
        ),
    ),
)

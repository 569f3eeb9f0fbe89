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
    6      3        0.55 (single)         1.1e-7, 1.2e-6
    8      3        1.25 (single)         1.8e-7, 1.2e-6
    12     4        2.0 (single, halved)  3.1e-10, 2.6e-8
    12     4        2.9 (single)          7.6e-8, 3.2e-7
    18     5        2.0 (double)          1.6e-17, 2.8e-15
    ====== ======== ===================== ================================

    Degree 6, which has a product less in its gradient than degree 8, that and the last
    of degree 12 are integrals of the expansion of the slope, which spreads its error
    evenly. The others expand the value, and their slope is
    worst at the end of the interval. An error of the slope at zero turns a matrix that
    is halved very often by that share of its norm, so that such ones need another
    degree 12, whose rounded coefficients have a slope that is right to 1e-8 up to a
    norm of one. Single precision has no degree 18: its coefficients would round to
    five times the error of degree 12 with a squaring, which costs as much but for one
    product. There each squaring doubles the distance from the unitary matrices, so that
    after two or more a step of Newton and Schulz follows, of two products. Where
    squared errors add up because many entries are equal, it follows in double.

References:
    Bader, Blanes, Casas and Seydaoğlu, An Efficient Algorithm to Compute the
    Exponential of Skew-Hermitian Matrices, 2021, https://arxiv.org/abs/2103.10132
"""

from __future__ import annotations

import functools
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
    """A polynomial, and the norm up to which it is one of the exponential.

    The basis begins with powers of A, of the given degrees. From its first elements, as
    many as ``known``, the norm is told.
    """

    limit: float
    degrees: tuple[int, ...]
    known: int
    steps: tuple[Step, ...]

    @functools.cache  # noqa: B019  # there are five programs, which stay
    def halved(self, count: int) -> Program:
        """Return the program that takes A to the exponential of ``A / 2**count``."""
        scales = [0.5 ** (count * degree) for degree in self.degrees]

        def scaled(row: Row) -> Row:
            first = tuple(c * s for c, s in zip(row, scales, strict=False))
            return first + row[len(scales) :]

        powers = len(scales) - 1
        rest = [Step(*map(scaled, step)) for step in self.steps[powers:]]
        steps = (*self.steps[:powers], *rest)
        return Program(self.limit, self.degrees, self.known, steps)


@dataclass(frozen=True)
class Plan:
    """Which program, and how many squarings follow.

    If they are ``equal`` for all of a batch, the program itself halves its argument.
    """

    program: Program
    squarings: int
    equal: bool


_SQUARE = Step((), (1.0,), (1.0,))  # A²
CUBE = Step((), (0.0, 1.0), (1.0,))  # A³
_THIRD = (0.0, 0.0, 1.0)
_SIXTH = Step((), _THIRD, _THIRD)  # A⁶
_MIXED = Step((), (0.0, 1.0), (0.10364139743640501, 0.02609335942684373))  # A³, A⁴
_TWELFTH = (-0.16627053646362447, -0.019090323948851677, -0.006467886290471509)

SINGLE = (
    Program(
        0.08,
        (1, 2),
        2,
        (
            _SQUARE,
            Step(
                (0.99999989335608661, 0.4999999680056884),
                (0.0, 1.0),
                (0.16660001066571857, 0.041653335110975668),
            ),
        ),
    ),
    Program(
        0.55,
        (1, 2, 3),
        2,
        (
            _SQUARE,
            CUBE,
            Step(
                (0.9999988098914978, 0.499999702070319, 0.16664303634099506),
                _THIRD,
                (0.041662723545215836, 0.008208083137986396, 0.001371477367016775),
            ),
        ),
    ),
    Program(
        1.25,
        (1, 2),
        3,
        (
            _SQUARE,
            _MIXED,
            Step(
                (0.99999888938909223, 0.49999972113528929, 0.54279225191465541),
                (0.0, 0.67162822672636457, 1.0),
                (0.16438159434757663, 0.0155822259226982, 0.03468612589760039),
            ),
        ),
    ),
    Program(
        2.9,
        (1, 2, 3),
        3,
        (
            _SQUARE,
            CUBE,
            Step(
                (0.07588696901089069, 0.06993734999340732, 0.004493660988050381),
                _TWELFTH,
                _TWELFTH,
            ),
            Step(
                (
                    0.5845373402214277,
                    -0.12321371004582748,
                    -0.017480655042236778,
                    5.474752187655159,
                ),
                (1.0965088852768345, 0.03924003279064292, 0.013315815332310639, 1.0),
                (0.0, 0.0, 0.0, 1.0),
            ),
        ),
    ),
)

DOUBLE = (
    Program(
        2.0,
        (1, 2, 3, 6),
        4,
        (
            _SQUARE,
            CUBE,
            _SIXTH,
            Step(
                (
                    -0.24222749901747748,
                    0.05066839120408857,
                    0.023404567895744141,
                    -1.0355013205937047e-5,
                ),
                (-0.10793005384867524, -0.0080183308551265292, -0.00089354526624055919),
                (
                    0.0,
                    -0.12937785329231199,
                    -0.01293567591523075,
                    -1.3622883446878944e-5,
                ),
            ),
            Step(
                (
                    -0.14075572409909292,
                    1.0955465096236762,
                    0.29811198744557155,
                    -0.00057207257428924859,
                    -4.7094393853968812,
                ),
                (
                    1.7157463766850013,
                    0.073686948027488562,
                    -0.0033650385206633561,
                    3.3927981037541774e-5,
                    1.0,
                ),
                (0.0, 0.0, 0.0, 0.0, 1.0),
            ),
        ),
    ),
)

_FINE_TWELFTH = (-0.1472666220578469, -0.019763033860079274, -0.006630417110341703)

# For single precision, where everything is halved very often; see Note [Intervals].
_FINE = Program(
    2.0,
    (1, 2, 3),
    3,
    (
        _SQUARE,
        CUBE,
        Step(
            (0.06520174221673096, 0.08210287161955117, 0.005410167827526145),
            _FINE_TWELFTH,
            _FINE_TWELFTH,
        ),
        Step(
            (
                0.6372563207334132,
                -0.15671637208485703,
                -0.030482063499613042,
                5.563404672632564,
            ),
            (1.150851145866053, 0.02582852935521882, 0.012055933272008962, 1.0),
            (0.0, 0.0, 0.0, 1.0),
        ),
    ),
)

# Squarings where the host may not look at the norm: its bound may be 2048. What is
# larger becomes NaN there. All matrices are halved so often, for D keeps its digits
# however small it is, and to choose between two matrices at each squaring costs more
# than the squarings that are not needed.
_SQUARINGS = 10

# In single and in double precision; made here, for the compiler traces no cache.
FIXED = [
    Plan(program.halved(_SQUARINGS), _SQUARINGS, equal=True)
    for program in (_FINE, DOUBLE[-1])
]

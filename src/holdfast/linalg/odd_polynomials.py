r"""Odd polynomials that in turn take all of (0, 1] to one: signs without a division.

Note [Growth]
    Applied to a matrix, :math:`a W + b W W^H W + c W (W^H W)^2`, they act on its
    singular values, and make them all one. The fastest way there is to take, in every
    step, the polynomial that is nearest to one on the range that is left (Amsel et
    al.). But while the smallest value is tiny, that one takes large values to tiny ones
    as well, and the rounding errors of the matrix, which do not shrink along, are lost
    digits of the direction: up to four of them.

    So the polynomial of the first steps is the best one on [1/4, 1], whatever is below
    it. Scaled to a largest value of one it takes no value of that range below 0.72, and
    whatever is less grows by a factor of 2.9 to 3.3. When all are above 1/4, four steps
    remain, the last of which is that of Newton and Schulz. All but that one are given
    1.01 of their range, lest rounding leave it.
"""

from __future__ import annotations

import torch

Coefficients = tuple[float, float, float]

GROWTH = (3.2669606411689287, -5.99184381454143, 3.6857615453026886)
TAIL = (
    (3.7719685232924522, -6.918065060265962, 4.255507812995599),
    (1.8891400809229584, -1.2539404954084732, 0.36541017276495846),
    (1.857521280433372, -1.2153587777474044, 0.35783564678341645),
    (1.875, -1.25, 0.375),
)

# How often to grow. Values down to 1.8e-6 of the largest become one in single
# precision, and down to 5.2e-8 in double.
_SINGLE, _DOUBLE = 10, 13


def sign_schedule(dtype: torch.dtype) -> tuple[Coefficients, ...]:
    """Return the coefficients a, b and c of all steps, for a type of numbers.

    Example:
        >>> import torch
        >>> value = 1e-5
        >>> for a, b, c in sign_schedule(torch.float32):
        ...     value = a * value + b * value**3 + c * value**5
        >>> round(value, 12)
        1.0

    References:
        Amsel et al., The Polar Express, 2025, https://arxiv.org/abs/2505.16932
    """
    wide = dtype in (torch.float64, torch.complex128)
    return (GROWTH,) * (_DOUBLE if wide else _SINGLE) + TAIL

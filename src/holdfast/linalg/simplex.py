r"""Coordinates of the simplex and of what sums to zero, along the last dimension.

The rows of the Helmert matrix H, of size n - 1 by n, are orthonormal and sum to zero,

.. math::
    h_k = (1, \ldots, 1, -k, 0, \ldots, 0) / \sqrt{k (k + 1)},

with k ones. Products with it are cumulative sums: they cost O(n), and no matrix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # torch's own name for it
from torch import Tensor


def helmert(X: Tensor) -> Tensor:
    """Return Hᵀx: what sums to zero, with the norm of x.

    Shape: ``(*, n - 1) -> (*, n)``.

    Example:
        >>> import torch
        >>> helmert(torch.tensor([2.0**0.5, 0.0]))
        tensor([ 1., -1.,  0.])
    """
    k = torch.arange(1, X.shape[-1] + 1, device=X.device, dtype=X.real.dtype)
    scaled = X / (k * (k + 1)).sqrt()
    after = scaled.flip(-1).cumsum(-1).flip(-1)
    return F.pad(after, (0, 1)) - F.pad(k * scaled, (1, 0))


def helmert_inverse(W: Tensor) -> Tensor:
    """Return Hw: the coordinates of what sums to zero.

    Shape: ``(*, n) -> (*, n - 1)``.

    Example:
        >>> import torch
        >>> helmert_inverse(torch.tensor([1.0, -1.0, 0.0]))
        tensor([1.4142, 0.0000])
    """
    k = torch.arange(1, W.shape[-1], device=W.device, dtype=W.real.dtype)
    before = W[..., :-1].cumsum(-1)
    return (before - k * W[..., 1:]) / (k * (k + 1)).sqrt()


def stick_breaking(X: Tensor) -> Tensor:
    r"""Break off a share of what is left of a stick of length 1, n - 1 times.

    .. math::
        w_k = \sigma(x_k - \log(n - k)) \left(1 - \sum_{j<k} w_j\right)

    so that x = 0 breaks equal parts. Computed by logarithms: tiny parts are right.

    Shape: ``(*, n - 1) -> (*, n)``.

    Example:
        >>> import torch
        >>> stick_breaking(torch.zeros(3))
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    Z = X - _left(X).log()
    share, rest = F.logsigmoid(Z), F.logsigmoid(-Z).cumsum(-1)
    return (F.pad(share, (0, 1)) + F.pad(rest, (1, 0))).exp()


def stick_breaking_inverse(W: Tensor) -> Tensor:
    """Return the logits of the shares; all parts have to be positive.

    Shape: ``(*, n) -> (*, n - 1)``.

    Example:
        >>> import torch
        >>> stick_breaking_inverse(torch.tensor([0.25, 0.5, 0.25]))
        tensor([-0.4055,  0.6931])
    """
    rest = W[..., 1:].flip(-1).cumsum(-1).flip(-1)
    first = W[..., :-1]
    return first.log() - rest.log() + _left(first).log()


def _left(X: Tensor) -> Tensor:
    """Return the number of parts that are still to come, from n - 1 to 1."""
    return torch.arange(X.shape[-1], 0, -1, device=X.device, dtype=X.dtype)


def simplex_projection(W: Tensor) -> Tensor:
    r"""Return the nearest point of the simplex: :math:`(w - \tau)_+`.

    Example:
        >>> import torch
        >>> simplex_projection(torch.tensor([2.0, 1.5, -1.0]))
        tensor([0.7500, 0.2500, 0.0000])

    References:
        Held, Wolfe and Crowder, Validation of Subgradient Optimization, 1974,
        https://doi.org/10.1007/BF01580223
    """
    descending = W.sort(-1, descending=True).values
    count = torch.arange(1, W.shape[-1] + 1, device=W.device, dtype=W.dtype)
    thresholds = (descending.cumsum(-1) - 1) / count
    kept = (descending > thresholds).sum(-1, keepdim=True)
    return (W - thresholds.gather(-1, (kept - 1).clamp_min(0))).relu()


def monotone(W: Tensor) -> Tensor:
    """Return the nondecreasing sequence that is nearest in the largest deviation.

    It is the mean of the running maximum, and of the running minimum from the end.

    Example:
        >>> import torch
        >>> monotone(torch.tensor([0.0, 3.0, 1.0, 4.0]))
        tensor([0., 2., 2., 4.])

    References:
        Ubhaya, Isotone Optimization, 1974,
        https://doi.org/10.1016/0021-9045(74)90037-X
    """
    above = W.cummax(-1).values
    below = W.flip(-1).cummin(-1).values.flip(-1)
    return (above + below) / 2

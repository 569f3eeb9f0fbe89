"""Figures: axes in, axes out; nothing is shown or saved, and no global state is used.

Colors are Okabe and Ito's, viridis, and a map from blue over white to red, which
color-blind readers and gray prints keep apart; lines also differ in dashes and markers.
Labels that the caller has set stay.

Example:
    >>> import torch, holdfast
    >>> from matplotlib.figure import Figure
    >>> ax = Figure(layout="constrained").subplots()
    >>> W = holdfast.orthogonal(torch.nn.Linear(8, 8)).weight.detach()
    >>> ax = holdfast.plot.eigenvalues(ax, [torch.linalg.eigvals(W).tolist()])
    >>> ax.get_xlabel()
    'real part'
"""

from .bars import costs
from .curves import curve, gradient_norms, reference, residuals, span
from .matrices import before_and_after, heat_map, sequence
from .spectra import deviations, eigenvalues, singular_values, spectrum
from .styles import LineStyle, style

__all__ = [
    "LineStyle",
    "before_and_after",
    "costs",
    "curve",
    "deviations",
    "eigenvalues",
    "gradient_norms",
    "heat_map",
    "reference",
    "residuals",
    "sequence",
    "singular_values",
    "span",
    "spectrum",
    "style",
]

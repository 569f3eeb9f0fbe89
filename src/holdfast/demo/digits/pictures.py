"""The demo's pictures: what goes on which page, under which name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ... import plot
from ..pages import legend, page
from .data import CHANCE, load_split
from .network import Kernel
from .settings import Settings
from .training import Run

# In float32 nothing is left of a contribution this much smaller than the others.
_SMALLEST_GRADIENT = 1e-12

STYLES = {
    Kernel.ORTHOGONAL: plot.LineStyle("#0072b2", "-", "o"),
    Kernel.ORDINARY: plot.LineStyle("#d55e00", "--", "s"),
    Kernel.SAME_START: plot.LineStyle("#000000", "-.", "^"),
}


def draw_pictures(runs: Sequence[Run], settings: Settings) -> dict[str, Figure]:
    """Return all pictures by the names of their files."""
    return {
        "task.png": task(settings),
        "training-curves.png": training_curves(runs),
        "eigenvalues.png": eigenvalues(runs),
        "singular-values.png": singular_values(runs),
        "gradient-norms.png": gradient_norms(runs, settings),
    }


def task(settings: Settings) -> Figure:
    """Return what the network sees of one digit of the training set."""
    digits, _ = load_split(settings.seed, settings.pixels)
    generator = torch.Generator().manual_seed(settings.seed)
    sequence = digits.padded(settings.steps, generator)[:, 0]
    figure, (ax,) = page(1, width=9.5, height=2.3)
    plot.sequence(ax, sequence.tolist(), signal=settings.image_steps)
    figure.colorbar(ax.images[0], ax=ax, label="input")
    part, noise = _words(settings)
    ax.set(
        title=f"A {digits.labels[0].item()}, {part} by {part}{noise}",
        xlabel="step",
        ylabel=f"pixel of the {part}" if settings.pixels > 1 else "",
        yticks=range(1, settings.pixels + 1, 2) if settings.pixels > 1 else [],
    )
    return figure


def training_curves(runs: Sequence[Run]) -> Figure:
    """Return loss and accuracy on the test set over the epochs."""
    figure, (loss, accuracy) = page(2)
    for run in runs:
        epochs = [moment.epoch for moment in run.moments]
        losses = [moment.loss for moment in run.moments]
        shares = [100 * moment.accuracy for moment in run.moments]
        plot.curve(loss, epochs, losses, STYLES[run.kernel], run.kernel.value)
        plot.curve(accuracy, epochs, shares, STYLES[run.kernel], run.kernel.value)
    plot.reference(accuracy, 100 * CHANCE, "guessing", below=True)
    loss.set(xlabel="epoch", ylabel="test loss: cross-entropy (nats)", ylim=(0, None))
    accuracy.set(xlabel="epoch", ylabel="test accuracy (%)", ylim=(0, 100))
    legend(figure, loss)
    return figure


def eigenvalues(runs: Sequence[Run]) -> Figure:
    """Return the eigenvalues of each kernel in the complex plane over the epochs."""
    figure, axes = page(len(runs), width=11, height=4.2, share=True)
    for ax, run in zip(axes, runs, strict=True):
        plot.eigenvalues(ax, [moment.spectrum.eigenvalues for moment in run.moments])
        ax.set_title(run.kernel.value)
    colored = axes[0].collections[-1]
    label = "eigenvalues after epoch"
    bar = figure.colorbar(colored, ax=axes, label=label, shrink=0.8)
    bar.locator = MaxNLocator(integer=True)
    legend(figure, axes[0])
    return figure


def singular_values(runs: Sequence[Run]) -> Figure:
    """Return where the singular values lie over the epochs, and how far from 1."""
    figure, (band, distance) = page(2)
    for run in runs:
        history = [moment.spectrum.singular_values for moment in run.moments]
        style, label = STYLES[run.kernel], run.kernel.value
        plot.singular_values(band, history, style, label)
        plot.deviations(distance, history, style, label)
    band.set(xlabel="epoch", ylabel="singular values of the kernel")
    distance.set(xlabel="epoch", ylabel="largest |singular value − 1|")
    legend(figure, band)
    return figure


def gradient_norms(runs: Sequence[Run], settings: Settings) -> Figure:
    """Return how much of the gradient reaches each step, before and after training."""
    figure, axes = page(2, share=True)
    for run in runs:
        style = STYLES[run.kernel]
        for ax, seen in zip(axes, (run.before, run.after), strict=True):
            plot.gradient_norms(ax, seen.gradient_norms, style, run.kernel.value)
    for ax, title in zip(axes, ("before training", "after training"), strict=True):
        if settings.steps > settings.image_steps:
            plot.span(ax, 1, settings.image_steps, "← image")
        ax.set(title=title, xlabel="step t")
    axes[0].set_ylabel("mean norm of dloss/dh at step t")
    axes[0].set_ylim(bottom=_SMALLEST_GRADIENT)
    legend(figure, axes[0])
    return figure


def _words(settings: Settings) -> tuple[str, str]:
    """Return what enters per step, and what follows it."""
    part = "row" if settings.pixels > 1 else "pixel"
    return part, ", and then noise" if settings.steps > settings.image_steps else ""

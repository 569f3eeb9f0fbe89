"""The data, the likelihood, the ways to hold a covariance, and the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

import holdfast
from holdfast import maps

from ..host import Host
from ..progress import Listener
from .settings import Settings

RATES = (0.003, 0.01, 0.03)


@dataclass(frozen=True)
class Wines:
    """Standardized measurements ``(samples, 13)`` and which of 3 wines each is of."""

    measurements: Tensor
    labels: Tensor

    def of(self, wine: int) -> Tensor:
        """Return the measurements of one wine."""
        return self.measurements[self.labels == wine]

    @property
    def shares(self) -> Tensor:
        """The share of each wine."""
        return self.labels.bincount() / len(self.labels)

    @property
    def means(self) -> Tensor:
        """The mean measurements of each wine, ``(3, 13)``."""
        return torch.stack([self.of(wine).mean(0) for wine in range(3)])

    @property
    def covariances(self) -> Tensor:
        """The optimum: the covariance of each wine's samples, ``(3, 13, 13)``."""
        return torch.stack([self.of(wine).T.cov(correction=0) for wine in range(3)])


def load_wines() -> Wines:
    """Return all wines, in units of the standard deviations."""
    from sklearn import datasets

    bunch: Any = datasets.load_wine()  # scikit-learn has no types
    X, labels = torch.from_numpy(bunch.data), torch.from_numpy(bunch.target)
    return Wines((X - X.mean(0)) / X.std(0), labels)


def random_start(seed: int) -> Tensor:
    """Return the covariances of few random points, ``(3, 13, 13)``."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(3, 50, 13, generator=generator, dtype=torch.float64)
    return X.mT @ X / 50


@dataclass(frozen=True)
class Way:
    """What keeps the matrix definite, or does not."""

    label: str
    register: Callable[[Host], object]


WAYS = (
    Way("spd, cholesky", holdfast.spd),
    Way("spd, matrix_exp", lambda host: holdfast.spd(host, spd_map="matrix_exp")),
    Way("spd, softplus", lambda host: holdfast.spd(host, spd_map="softplus")),
    Way(
        "symmetric only",
        lambda host: holdfast.register_parametrization(
            host, "weight", maps.Symmetric()
        ),
    ),
    Way("unconstrained", lambda host: host),
)


@dataclass(frozen=True)
class Fit:
    """One training. What follows the loss of definiteness is not in it.

    Attributes:
        way: what kept the matrices definite.
        rate: the largest learning rate.
        excess: mean negative log-likelihood at each step, in nats above the optimum.
        smallest: smallest eigenvalue of all matrices at each step.
        lost: the step at which one was not positive any more; ``None`` if none was.
        covariances: the last ones that were definite.
    """

    way: Way
    rate: float
    excess: Sequence[float]
    smallest: Sequence[float]
    lost: int | None
    covariances: Tensor


def fit_all(wines: Wines, settings: Settings, listener: Listener) -> tuple[Fit, ...]:
    """Train each way with each learning rate."""
    fits = list[Fit]()
    for way in WAYS:
        listener.started(way.label, settings.steps * len(RATES))
        for rate in RATES:
            fits.append(fit(way, rate, wines, settings, listener))
            listener.updated(settings.steps - (fits[-1].lost or settings.steps))
        lost = sum(fit.lost is not None for fit in fits[-len(RATES) :])
        listener.tested(f"{lost} of {len(RATES)} lost" if lost else "definite")
    return tuple(fits)


def fit(
    way: Way, rate: float, wines: Wines, settings: Settings, listener: Listener
) -> Fit:
    """Take steps of Adam until they are used up or a matrix is not definite."""
    best = wines.covariances
    least = divergence(best, best, wines.shares).item()
    host = Host(random_start(settings.seed))
    way.register(host)
    optimizer = torch.optim.Adam(host.parameters(), rate)
    schedule = CosineAnnealingLR(optimizer, settings.steps)
    excess, smallest = list[float](), list[float]()
    lost, covariances = None, best
    for step in range(settings.steps + 1):
        value = host.weight
        low = smallest_eigenvalue(value.detach())
        if low <= 0:
            lost = step
            break
        covariances = value.detach().clone()
        loss = divergence(value, best, wines.shares)
        excess.append(loss.item() - least)
        smallest.append(low)
        if step < settings.steps:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            listener.updated()
    return Fit(way, rate, excess, smallest, lost, covariances)


def divergence(covariances: Tensor, best: Tensor, shares: Tensor) -> Tensor:
    r"""Return the mean negative log-likelihood of the samples, without a constant.

    .. math::
        \sum_c p_c \tfrac12 \big(\log |\det \Sigma_c|
        + \mathrm{tr}(\Sigma_c^{-1} S_c)\big)

    S are the covariances of the samples, of which Σ = S is the optimum.
    """
    logdet = torch.linalg.slogdet(covariances).logabsdet
    trace = (torch.linalg.inv(covariances).mT * best).sum((-2, -1))
    return (shares * (logdet + trace) / 2).sum()


def smallest_eigenvalue(W: Tensor) -> float:
    """Return the smallest eigenvalue of the symmetric parts."""
    return torch.linalg.eigvalsh((W + W.mT) / 2).min().item()


def distance(W: Tensor, best: Tensor) -> float:
    """Return the relative distance from the optimum, in the Frobenius norm."""
    return (W - best).norm().item() / best.norm().item()

"""Train both networks, then prove and attack."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import holdfast

from ..digits.data import Digits, load_split
from ..progress import Listener
from .network import Kind, build_network, lipschitz_bound
from .robustness import certified_radii, is_fooled, margins
from .settings import Settings

_WARM_UP = 0.15  # share of the updates before the learning rate is at its largest


@dataclass(frozen=True)
class Findings:
    """What was proven of a network, and what an attack made of it.

    Attributes:
        radii: lengths of changes; the first is 0.
        certified: per radius, the share of test images that are proven to stay right.
        attacked: per radius, the share that stays right under attack.
        proofs: attacks on an image within a radius that is proven for it.
        violations: how many of these found a wrong answer all the same.
    """

    radii: tuple[float, ...]
    certified: tuple[float, ...]
    attacked: tuple[float, ...]
    proofs: int
    violations: int


@dataclass(frozen=True)
class Run:
    """All that is known of one network.

    Attributes:
        kind: what holds of its weights.
        bound: no distance grows by more than this factor.
        findings: what was proven and attacked.
        seconds: what training and attacks took.
    """

    kind: Kind
    bound: float
    findings: Findings
    seconds: float


def run_all(settings: Settings, listener: Listener) -> tuple[Run, ...]:
    """Train, prove and attack, once per kind of network."""
    training, tested = load_split(settings.seed)
    runs = list[Run]()
    for kind in Kind:
        start = time.perf_counter()
        network = train(kind, settings, *flat(training), listener)
        # A proof is no place for rounding errors.
        network = network.double().requires_grad_(False)
        bound, (images, labels) = lipschitz_bound(network), flat(tested)
        with holdfast.cached(network):
            findings = examine(
                network, images.double(), labels, bound, settings, listener
            )
        runs.append(Run(kind, bound, findings, time.perf_counter() - start))
    return tuple(runs)


def flat(digits: Digits) -> tuple[Tensor, Tensor]:
    """Return images ``(samples, 64)`` and their labels."""
    return digits.images.transpose(0, 1).flatten(1), digits.labels


def train(
    kind: Kind, settings: Settings, images: Tensor, labels: Tensor, listener: Listener
) -> nn.Sequential:
    """Return a network that was trained on the margin."""
    generator = torch.Generator().manual_seed(settings.seed)
    network = build_network(kind, settings)
    updates = settings.epochs * math.ceil(len(labels) / settings.batch)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.rate, total_steps=updates, pct_start=_WARM_UP
    )
    # The attack's steps count too: each of them is a pass through the network as well.
    attacks = len(settings.radii) + 2
    listener.started(kind.value, updates + attacks * settings.restarts * settings.steps)
    for _ in range(settings.epochs):
        order = torch.randperm(len(labels), generator=generator)
        for batch in order.split(settings.batch):
            rest = settings.margin - margins(network(images[batch]), labels[batch])
            loss = torch.relu(rest).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            listener.updated()
    return network


def examine(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    bound: float,
    settings: Settings,
    listener: Listener,
) -> Findings:
    """Prove with a Lipschitz constant, and attack each proof.

    All images are attacked within the same radii, 0 among them, and each of them within
    the very radius that is proven for it.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    proven = certified_radii(network, images, labels, bound)
    radii = (0.0, *settings.radii)
    certified, attacked = list[float](), list[float]()
    proofs = violations = 0
    for within in (*(torch.full_like(proven, radius) for radius in radii), proven):
        fooled = is_fooled(
            network,
            images,
            labels,
            within,
            settings.restarts,
            settings.steps,
            generator,
        )
        claimed = (within <= proven) & (proven > 0)
        certified.append(claimed.double().mean().item())
        attacked.append((~fooled).double().mean().item())
        proofs += int((claimed & (within > 0)).sum())
        violations += int((claimed & fooled).sum())
        listener.updated(settings.restarts * settings.steps)
    return Findings(
        radii, tuple(certified[:-1]), tuple(attacked[:-1]), proofs, violations
    )

"""A network trained on digits, and ways to adapt it to mirrored ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

import holdfast

from ..digits.classifier import Classifier, layers
from ..progress import Listener
from ..running import percent
from .settings import Settings

RANKS = (1, 2, 4, 8)
HIDDEN = 128
_RATE, _BASE_RATE = 1e-2, 3e-3


@dataclass(frozen=True)
class Way:
    """A way to adapt: how it is called, and how it prepares a trained network."""

    label: str
    prepare: Callable[[nn.Sequential], object]
    rank: int | None = None


@dataclass(frozen=True)
class Adapted:
    """What a way made of all runs.

    Attributes:
        way: how it adapts; ``None`` for the network that was not adapted.
        parameters: how many were trained.
        mirrored: accuracy on mirrored digits, one per run.
        plain: accuracy on digits as they are, one per run.
        bytes_trained: size of a file with what was trained, beside the network's own.
        bytes_whole: size of a file with the whole model.
        merging: largest change of a logit by merging; ``None`` if nothing is merged.
        change: singular values of the change to the middle layer, of the first run.
    """

    way: Way | None
    parameters: int
    mirrored: Sequence[float]
    plain: Sequence[float]
    bytes_trained: int
    bytes_whole: int
    merging: float | None
    change: Sequence[float]


def mirrored(images: Tensor) -> Tensor:
    """Return the images ``(samples, 8, 8)`` as a mirror shows them."""
    return images.flip(-1)


def all_of_it(network: nn.Sequential) -> None:
    """Train everything."""
    network.requires_grad_()


def last_layer(network: nn.Sequential) -> None:
    """Train the last layer alone."""
    network.requires_grad_(False)
    network[-1].requires_grad_()


def adapters(rank: int) -> Callable[[nn.Sequential], None]:
    """Return what freezes a network, and puts a low-rank change beside each weight."""

    def prepare(network: nn.Sequential) -> None:
        network.requires_grad_(False)
        for layer in layers(network):
            holdfast.lora(layer, rank=rank)

    return prepare


WAYS = (
    Way("full fine-tuning", all_of_it),
    Way("last layer", last_layer),
    *(Way(f"lora, rank {rank}", adapters(rank), rank) for rank in RANKS),
)


def trained_base(digits: Classifier) -> nn.Sequential:
    """Return a network trained on digits as they are."""
    made = digits.start(HIDDEN)
    optimizer = torch.optim.Adam(made.parameters(), _BASE_RATE)
    digits.fit(made, optimizer, digits.images, digits.epochs)
    return made


def adapted(digits: Classifier, base: nn.Sequential, way: Way) -> nn.Sequential:
    """Return a copy of the network, adapted to mirrored digits."""
    made = copy.deepcopy(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(digits.seed)
        way.prepare(made)
    optimizer = torch.optim.Adam(trained(made).values(), _RATE)
    digits.fit(made, optimizer, mirrored(digits.images), digits.epochs)
    return made


def adapt_all(settings: Settings, listener: Listener) -> tuple[Adapted, ...]:
    """Train the networks, adapt them in each way, and measure."""
    seed, epochs, runs = settings.seed, settings.epochs, range(settings.runs)
    digits = [Classifier(seed, seed + run, epochs, listener) for run in runs]
    updates = settings.runs * digits[0].steps
    listener.started("digits as they are", updates)
    bases = [trained_base(each) for each in digits]
    results = [measured(None, digits, bases, bases)]
    listener.tested(f"{percent(mean(results[0].plain))} right")
    for way in WAYS:
        listener.started(way.label, updates)
        pairs = zip(digits, bases, strict=True)
        networks = [adapted(each, base, way) for each, base in pairs]
        results.append(measured(way, digits, bases, networks))
        listener.tested(f"{percent(mean(results[-1].mirrored))} right")
    return tuple(results)


def measured(
    way: Way | None,
    digits: Sequence[Classifier],
    bases: Sequence[nn.Sequential],
    networks: Sequence[nn.Sequential],
) -> Adapted:
    """Measure the networks of all runs."""
    both = list(zip(digits, networks, strict=True))
    first, base = networks[0], bases[0]
    change = layers(first)[1].weight - layers(base)[1].weight
    lora = way is not None and way.rank is not None
    bytes_trained, bytes_whole = file_sizes(first)
    return Adapted(
        way,
        sum(tensor.numel() for tensor in trained(first).values()) if way else 0,
        [one.accuracy(net, mirrored(one.tested)) for one, net in both],
        [one.accuracy(without_adapters(net), one.tested) for one, net in both],
        bytes_trained if way else 0,
        bytes_whole,
        merging_changes(first, mirrored(digits[0].tested)) if lora else None,
        torch.linalg.svdvals(change.detach().double()).tolist(),
    )


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def trained(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that train, by their names."""
    return {n: p for n, p in network.named_parameters() if p.requires_grad}


def without_adapters(network: nn.Sequential) -> nn.Sequential:
    """Return a copy whose low-rank changes are zero; what was overwritten stays so."""
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if name.endswith(".original0"):
                parameter.zero_()
    return twin


def merging_changes(network: nn.Sequential, images: Tensor) -> float:
    """Return how much the logits change when the adapters become part of the weights.

    Inside of the scope the model is a plain one, as `holdfast.fold` leaves it.
    """
    with torch.no_grad():
        before = network(images)
        with holdfast.folded(network):
            return (network(images) - before).abs().max().item()


def save_trained(network: nn.Module, path: Path) -> None:
    """Write what was trained, and nothing else, to a safetensors file."""
    holdfast.save(_as_module(trained(network)), path)


def load_trained(network: nn.Module, path: Path) -> None:
    """Read what `save_trained` wrote into a network that was prepared alike."""
    parameters = trained(network)
    empty = {name: torch.empty_like(tensor) for name, tensor in parameters.items()}
    read = holdfast.load(path, _as_module(empty))
    with torch.no_grad():
        for tensor, value in zip(parameters.values(), read.parameters(), strict=True):
            tensor.copy_(value)


def file_sizes(network: nn.Module) -> tuple[int, int]:
    """Return the bytes of a file with what was trained, and of one with everything."""
    with TemporaryDirectory() as folder:
        part, whole = Path(folder, "part.safetensors"), Path(folder, "all.safetensors")
        save_trained(network, part)
        holdfast.save(network, whole)
        return part.stat().st_size, whole.stat().st_size


def _as_module(tensors: dict[str, nn.Parameter] | dict[str, Tensor]) -> nn.Module:
    """Return a module with these parameters, whose names may have no dots there."""
    return nn.ParameterDict({name.replace(".", "/"): t for name, t in tensors.items()})

"""Averages of weights, not of the tensors that they are computed from."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..core.chain import ParametrizationList
from ..core.checks import check_module, is_finite
from ..core.classes import chain_of
from ..core.parametrization import Parametrization
from ..errors import NonFiniteError, path_of


class AverageWeights(nn.Module):
    r"""Keep a running average of the weights of a model, such as an EMA or SWA.

    `torch.optim.swa_utils.AveragedModel` averages parameters, and of a parametrized
    model these are the originals: the average of coordinates around different bases is
    no average of anything. Here the weights are averaged, by an ``AveragedModel`` of
    their own, and the average is projected to its set and assigned, once before it is
    used. It is used in the same way, with ``update_bn`` and its averaging functions.

    Args:
        model: the model; it is copied.
        **options: those of ``AveragedModel``: ``device``, ``avg_fn``,
            ``multi_avg_fn``, ``use_buffers``.

    Attributes:
        module: the copy, with the averages.

    Example:
        >>> import torch, holdfast
        >>> from torch.optim.swa_utils import get_ema_multi_avg_fn
        >>> model = holdfast.orthogonal(torch.nn.Linear(4, 4))
        >>> ema = holdfast.AverageWeights(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        >>> ema.update_parameters(model)  # after each step of the optimizer
        >>> W = ema.module.weight
        >>> torch.allclose(W.T @ W, torch.eye(4), atol=1e-6)
        True

    References:
        Izmailov et al., Averaging Weights Leads to Wider Optima and Better
        Generalization, 2018, https://arxiv.org/abs/1803.05407
    """

    def __init__(self, model: nn.Module, **options: Any) -> None:  # noqa: ANN401
        check_module(model, "AverageWeights")
        super().__init__()
        self._copy = copy.deepcopy(model)
        if options.get("device") is not None:
            self._copy.to(options["device"])
        self._averages = AveragedModel(_Weights(model), **options)
        self._current = False

    @property
    def module(self) -> nn.Module:
        """The copy of the model, with the averages."""
        if not self._current:
            self._write()
        return self._copy

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Run the model with the averages."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: nn.Module) -> None:
        """Take the present weights of the model into the average."""
        check_module(model, "AverageWeights.update_parameters")
        self._averages.update_parameters(_Weights(model))
        self._current = False
        self._write_buffers()

    def _load_from_state_dict(self, *args: Any) -> None:  # noqa: ANN401
        super()._load_from_state_dict(*args)
        self._current = False

    def _averaged(self) -> Iterator[tuple[nn.Module, str, Tensor | None, Tensor]]:
        """Yield each place in the copy with the average that belongs there."""
        averages = cast("_Weights", self._averages.module).tensors()
        for place, average in zip(_places(self._copy), averages, strict=True):
            yield *place, average

    @torch.no_grad()
    def _write_buffers(self) -> None:
        """Write the buffers at once: `update_bn` resets and computes them anew."""
        for *_, plain, average in self._averaged():
            if plain is not None and not isinstance(plain, nn.Parameter):
                plain.copy_(average)

    @torch.no_grad()
    def _write(self) -> None:
        """Project the averages of weights to their sets, and assign them."""
        for owner, name, plain, average in self._averaged():
            if plain is not None:
                if isinstance(plain, nn.Parameter):
                    plain.copy_(average)
                continue
            chain = cast("ParametrizationList", chain_of(owner, name))
            policy, chain.outside = chain.outside, "project"
            try:
                setattr(owner, name, _nearest(average, chain, owner, name))
            finally:
                chain.outside = policy
        self._current = True


def _nearest(
    average: Tensor, chain: ParametrizationList, owner: nn.Module, name: str
) -> Tensor:
    """Project to the set that the last map lands in; some maps project otherwise."""
    if not is_finite(average):
        raise NonFiniteError(
            f"`{path_of(owner, name)}`: the average has NaN or infinite entries, so "
            "the weight had some when it was averaged. Leave such steps out."
        )
    *_, last = chain._modules.values()
    if not isinstance(last, Parametrization) or last.codomain.contains(average):
        return average
    return last.codomain.project(average)


class _Weights(nn.Module):
    """The weights of a model at one moment, as parameters, and its buffers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.count = 0
        for owner, name, plain in _places(model):
            value = getattr(owner, name) if plain is None else plain
            parameter = plain is None or isinstance(plain, nn.Parameter)
            if parameter:
                frozen = nn.Parameter(value.detach(), requires_grad=False)
                self.register_parameter(f"tensor{self.count}", frozen)
            else:
                self.register_buffer(f"tensor{self.count}", value.detach())
            self.count += 1

    def tensors(self) -> Iterator[Tensor]:
        """Yield all in the order of the model."""
        for i in range(self.count):
            yield getattr(self, f"tensor{i}")


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor | None]]:
    """Yield owner and name of each tensor, and itself unless it is parametrized."""
    inside: set[nn.Module] = set()
    for module in model.modules():
        if module not in inside:
            for name, chain in _chains(module):
                inside.update(chain.modules())
                yield module, name, None
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None:
                    yield module, name, tensor


def _chains(module: nn.Module) -> Iterator[tuple[str, ParametrizationList]]:
    chains: Any = module._modules.get("parametrizations")
    for name, chain in getattr(chains, "_modules", {}).items():
        if isinstance(chain, ParametrizationList):
            yield name, chain

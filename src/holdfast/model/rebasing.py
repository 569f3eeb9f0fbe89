"""Base points that follow the weights while they train."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..core.chain import ParametrizationList
from ..core.classes import chain_of
from ..core.parametrization import Parametrization
from .optim import chains_moved_by


class Rebase:
    r"""Move base points to the present weights after every K steps of an optimizer.

    .. math::
        B \leftarrow \varphi_B(X), \qquad X \leftarrow 0

    This is dynamic trivialization: the weights stay, and are written in coordinates
    around themselves, where every map is well conditioned. With ``every=1`` a training
    step pays no derivative of the map at all, since at zero it is a projection. It
    concerns weights whose first map has a base (`maps.Orthogonal`, `ThinOrthogonal`,
    `Horizontal` and `SphereExp`), if this optimizer moves them.

    The optimizer's momenta stay as they are. For square weights they are vectors in a
    frame that moves along; for others the new base projects them onto its own
    directions. Weight decay pulls towards the base: with ``every=1`` it does nothing.

    Args:
        model: the model.
        optimizer: its optimizer.
        every: the number K of steps from one move to the next.
        repair_every: after so many moves the new bases are made exactly orthonormal
            again (to rounding), which takes two more products. 1 does it always.

    Raises:
        ValueError: a number is not positive, or no weight of the model that the
            optimizer moves has a base.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.orthogonal(torch.nn.Linear(4, 4))
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> rebase = holdfast.Rebase(layer, optimizer, every=1)
        >>> layer(torch.ones(2, 4)).square().sum().backward()
        >>> optimizer.step()
        >>> torch.equal(layer.weight, layer.parametrizations.weight[0].base)
        True

    References:
        Lezcano-Casado, Trivializations for Gradient-Based Optimization on Manifolds,
        2019, https://arxiv.org/abs/1909.09501
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        every: int = 1,
        repair_every: int = 30,
    ) -> None:
        for name, number in (("every", every), ("repair_every", repair_every)):
            if number < 1:
                raise ValueError(f"Expected `{name}` to be at least 1. Got {number}.")
        self.every = every
        self.repair_every = repair_every
        self.steps = 0
        self._chains = [
            (module, name, chain)
            for module, name, chain in chains_moved_by(optimizer, model)
            if _has_base(chain)
        ]
        if not self._chains:
            raise ValueError(
                "No weight that the optimizer moves has a base point: make them with "
                "`holdfast.orthogonal`, before the optimizer, or call "
                "`holdfast.swap_parameters(optimizer)`."
            )
        self._handle = optimizer.register_step_post_hook(self._after_step)

    def _after_step(self, *_: Any) -> None:  # noqa: ANN401
        self.steps += 1
        if self.steps % self.every == 0:
            moves = self.steps // self.every
            self.rebase(repair=moves % self.repair_every == 0)

    def rebase(self, *, repair: bool = True) -> None:
        """Move the base points now, those of weights that are still parametrized."""
        for module, name, chain in self._chains:
            if chain_of(module, name) is chain:
                chain.rebase_(repair=repair)

    def remove(self) -> None:
        """Leave the base points where they are from now on."""
        self._handle.remove()

    def state_dict(self) -> dict[str, int]:
        """Return the number of steps, on which the next move depends."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a number of steps."""
        self.steps = int(state["steps"])


def _has_base(chain: ParametrizationList) -> bool:
    first = chain._modules["0"]
    return isinstance(first, Parametrization) and first.based

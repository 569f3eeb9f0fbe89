"""Base points that follow the weights while they train."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..core.batching import PAYS, pays
from ..core.chain import ParametrizationList
from ..core.checks import check_module, check_optimizer
from ..core.classes import chain_of
from ..core.entry import tensors_of
from ..core.kinds import kind_of
from ..core.parametrization import Parametrization
from ..core.sharing import claim
from ..core.stacking import rows_of, stacked, twin_of
from ..core.torch_state import write_all
from ..errors import TiedTensorError, path_of
from ..linalg.tracing import captured
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

    Equal maps of equal shapes move as one batch, where that is faster.

    The optimizer's momenta stay as they are. For square weights they are vectors in a
    frame that moves along; for others the new base projects them onto its own
    directions. Weight decay pulls towards the base: with ``every=1`` it does nothing.
    The mean of two bases is none, so average with `AverageWeights` and not with torch's
    ``AveragedModel``, with buffers or without.

    On CUDA nobody looks whether coordinates are zero, so that a step pays the map with
    ``every=1`` too. A step that is captured in a CUDA graph always repairs, and has to
    move in every replay: ``every=1``.

    Args:
        model: the model.
        optimizer: its optimizer.
        every: the number K of steps from one move to the next.
        repair_every: after so many moves the new bases are made exactly orthonormal
            again (to rounding), which takes two more products. 1 does it always, as
            `maps.ThinOrthogonal` and `Horizontal` do, whose errors would multiply.

    Raises:
        ValueError: a number is not positive, or no weight of the model that the
            optimizer moves has a base.
        TiedTensorError: two weights have an original in common.
        RuntimeError: a step is captured in a CUDA graph, and ``every`` is not 1.

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
        repair_every: int = 10,
    ) -> None:
        check_module(model, "Rebase")
        check_optimizer(optimizer, "Rebase")
        for name, number in (("every", every), ("repair_every", repair_every)):
            if not isinstance(number, int) or number < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(
                    f"Expected `{name}` to be a whole number, at least 1. Got {number}."
                )
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
        _require_own_originals(self._chains)
        self._handle = optimizer.register_step_post_hook(self._after_step)

    def _after_step(self, *_: Any) -> None:  # noqa: ANN401
        self.steps += 1
        if captured(self._chains[0][2].originals()[0]):
            self._in_every_replay()
            self.rebase()
        elif self.steps % self.every == 0:
            moves = self.steps // self.every
            self.rebase(repair=moves % self.repair_every == 0)

    def _in_every_replay(self) -> None:
        if self.every > 1:
            raise RuntimeError(
                "A captured step moves the bases in every replay, or in none. Got "
                f"every={self.every}. Use every=1, or call `rebase()` between replays."
            )

    def rebase(self, *, repair: bool = True) -> None:
        """Move the base points now, those of weights that are still parametrized."""
        groups: dict[object, list[ParametrizationList]] = {}
        for module, name, chain in self._chains:
            if chain_of(module, name) is chain:
                kind = kind_of(chain)
                alike = kind is not None and kind.foreach == "stack" and pays(kind)
                key = kind.likeness if kind is not None and alike else chain
                groups.setdefault(key, []).append(chain)
        for chains in groups.values():
            if not _rebased_together(chains, repair=repair):
                for chain in chains:
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


def _require_own_originals(
    chains: list[tuple[nn.Module, str, ParametrizationList]],
) -> None:
    """Refuse coordinates around two bases: one cannot move without the other."""
    known = dict[int, str]()
    for module, name, chain in chains:
        for original in chain.originals():
            path = path_of(module, name)
            other = known.setdefault(id(original), path)
            if other is not path:
                raise TiedTensorError(
                    f"`{path}` has an original in common with `{other}`, so that its "
                    "base cannot move alone. Give each an original of its own."
                )


@torch.no_grad()
def _rebased_together(chains: list[ParametrizationList], *, repair: bool) -> bool:
    """Move the bases of equal chains as one batch, or do nothing."""
    kinds = [kind for chain in chains if (kind := kind_of(chain))]
    if len(kinds) < PAYS["stack"][0] or len(kinds) < len(chains):
        return False
    found = rows_of(kinds)
    if found is None:
        return False
    stacks = stacked(found)
    if stacks is None:
        return False
    twin = twin_of(chains[0], tuple(stacks))
    claim(twin)
    first = twin._modules["0"]
    first.rebase_(*twin.originals(), repair=repair)
    kept = [tensor for _, _, tensor in tensors_of(twin)]
    if [*map(id, kept)] != [*map(id, stacks)]:  # a first base: each has to make its own
        return False
    for column, stack in zip(zip(*found, strict=True), stacks, strict=True):
        write_all([place[2] for place in column], stack.unbind())
    for chain in chains:
        chain.look()
    return True


def _has_base(chain: ParametrizationList) -> bool:
    first = chain._modules["0"]
    return isinstance(first, Parametrization) and first.based

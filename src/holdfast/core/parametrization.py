"""The one noun: a map from free tensors onto a set, with a right inverse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..sets.constraint import Constraint
from ..sets.linear import Real
from .plain_data import constructor, described
from .sharing import forget_at_home

Outside = Literal["error", "warn", "project"]


class Parametrization(nn.Module):
    r"""A differentiable map :math:`\varphi` with a right inverse :math:`\psi`.

    .. math::
        \varphi : \text{domain} \to \text{codomain}, \qquad
        \varphi(\psi(W)) = W \quad\text{for } W \in \text{codomain}.

    A subclass stores its constructor arguments under their own names and implements
    :meth:`forward` and :meth:`right_inverse`. Any ``nn.Module`` with a ``forward``
    can be registered too; deriving from this class adds the declared sets, which
    assignments are checked against, and reuse of values while nothing changes.

    Attributes:
        domain: the set that ``forward`` accepts.
        codomain: the set that ``forward`` lands in.
        deterministic: ``forward`` depends on nothing but its arguments, the map's
            constructor arguments and its registered tensors, so that its value may be
            reused while these are the same.
        outside: what becomes of an assigned tensor that ``codomain`` does not
            contain: ``"error"`` refuses it, ``"warn"`` and ``"project"`` move it to
            ``codomain.project``.
        moves: the map has state that :meth:`refine_` advances once in every training
            forward of the host module.
        based: the map has a base point that :meth:`rebase_` moves to the value.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(3, 3)
        >>> _ = holdfast.register_parametrization(layer, "weight", maps.Symmetric())
        >>> bool(torch.equal(layer.weight, layer.weight.T))
        True
    """

    domain: Constraint = Real()
    codomain: Constraint = Real()
    deterministic: ClassVar[bool] = False
    outside: ClassVar[Outside] = "error"
    moves: ClassVar[bool] = False
    based: bool = False

    def forward(self, *originals: Tensor) -> Tensor:
        """Map the free tensors to the weight; no side effects."""
        raise NotImplementedError

    def right_inverse(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return free tensors that ``forward`` maps to ``weight``."""
        raise NotImplementedError

    def bind(self, weight: Tensor) -> None:
        """Create the state that depends on the tensor; called once, at registration."""

    def refine_(self, *originals: Tensor) -> None:
        """Advance the map's state in place; called once per training forward."""

    def rebase_(self, *originals: Tensor, repair: bool = True) -> None:
        """Move the base point to the value, and the originals to its coordinates.

        All is written in place, and last. The value stays, but for a step towards the
        codomain if ``repair`` says so: rounding errors would add up.
        """
        raise NotImplementedError

    # Whoever holds a map may change it, or its tensors: as in `core/epoch.py`

    def __setattr__(self, name: str, value: Any) -> None:
        forget_at_home(self)
        super().__setattr__(name, value)

    def _named_members(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        forget_at_home(self)
        yield from super()._named_members(*args, **kwargs)

    def register_forward_pre_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As ``nn.Module``."""
        forget_at_home(self)
        return super().register_forward_pre_hook(*args, **kwargs)

    def register_forward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As ``nn.Module``."""
        forget_at_home(self)
        return super().register_forward_hook(*args, **kwargs)

    def translate(
        self, state: dict[str, Tensor], prefix: str, name: str, index: int
    ) -> None:
        """Rename keys of older checkpoints, in place, before they are loaded.

        Args:
            state: the state dict that is being loaded.
            prefix: what the keys of the host module begin with.
            name: the tensor.
            index: the map's place in the chain.
        """

    def spec(self) -> dict[str, object]:
        """Return the class and its arguments as data for `maps.from_spec` and JSON.

        Of a large tensor it has shape and dtype: the values are the state dict's.
        """
        return described(self, "map")

    def extra_repr(self) -> str:
        """Show choices by name, and the arguments that differ from their defaults."""
        arguments = (
            (p.name, getattr(self, p.name), p.default)
            for p in constructor(type(self))
            if p.kind is not p.VAR_POSITIONAL
        )
        return ", ".join(
            f"{name}={value!r}"
            for name, value, default in arguments
            if isinstance(value, str)
            or (not isinstance(value, Tensor | nn.Module) and value != default)
        )

"""A link of a chain disabled for a while (A10)."""

from __future__ import annotations

import contextlib
from functools import partial

from torch import nn

from ..errors import InvalidTensorError, path_of
from .chain import ParametrizationList
from .checks import check_image, check_module
from .relinking import links_of
from .sources import undisturbed
from .surgery import chain_to_operate_on, place_of


class disabled(contextlib.ContextDecorator):
    """Compute a parametrized tensor without one of its maps inside this scope.

    The map passes on what it gets, on assignment too. Originals stay as they are, so
    that the tensor changes, and is what the whole chain makes of them at the end. The
    chain, its state dict and copies of it know nothing of it.

    Args:
        module: the module that owns the tensor.
        tensor_name: its name.
        link: the map, or its place. One with several originals cannot be disabled.

    Raises:
        UnknownTensorError: the tensor is not parametrized.
        InvalidTensorError: without the map the value has another shape or dtype.
        IndexError: there is no such link.

    Example:
        >>> import torch, holdfast
        >>> _ = torch.manual_seed(0)
        >>> layer = torch.nn.Linear(2, 2)
        >>> _ = holdfast.register_parametrization(layer, "weight", torch.nn.ReLU())
        >>> with holdfast.disabled(layer, "weight", 0):
        ...     bool((layer.weight < 0).any())
        True
        >>> bool((layer.weight < 0).any())
        False
    """

    def __init__(
        self, module: nn.Module, tensor_name: str, link: int | nn.Module
    ) -> None:
        check_module(module, "disabled", tensor_name)
        self.module, self.tensor_name, self.link = module, tensor_name, link
        self._entered: list[tuple[ParametrizationList, nn.Module]] = []

    def __enter__(self) -> None:
        """Disable the link."""
        where = partial(path_of, self.module, self.tensor_name)
        chain = chain_to_operate_on(self.module, self.tensor_name, where)
        place = place_of(chain, self.link, where)
        link = links_of(chain)[place]
        if place == 0 and not chain.is_tensor:
            raise InvalidTensorError(
                f"`{where()}`: `{type(link).__name__}` makes one tensor of "
                f"{chain.ntensors}, so it cannot be left out."
            )
        with undisturbed():
            value = chain()
            before = chain._disabled
            _disable(chain, (*before, link))
            try:
                check_image(chain(), value, where, unsafe=chain.unsafe)
            except BaseException:
                _disable(chain, before)
                raise
        self._entered.append((chain, link))

    def __exit__(self, *_: object) -> None:
        """Enable it again."""
        chain, link = self._entered.pop()
        rest = [*chain._disabled]
        last = max(i for i, each in enumerate(rest) if each is link)
        _disable(chain, (*rest[:last], *rest[last + 1 :]))


def _disable(chain: ParametrizationList, links: tuple[nn.Module, ...]) -> None:
    chain.__dict__["_disabled"] = links
    chain.forget()
    chain.note_special()

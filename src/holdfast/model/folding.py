"""Folding: a plain model for inference and export, and the parametrized one again."""

from __future__ import annotations

import contextlib

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..core.aside import is_aside, put_back, set_aside
from ..core.checks import check_module
from ..core.deferral import awaited, refuse_lazy
from ..core.sharded import refuse_sharded
from ..core.sources import hosts_below
from ..errors import InvalidTensorError, UnknownTensorError


def fold(model: nn.Module) -> nn.Module:
    """Compute every parametrized tensor once and put the plain value in its place.

    The model is then what it would be without parametrizations: its classes, the keys
    of its state dict, its hooks. It can be exported, traced, compiled and served at
    the cost of a plain model. Tensors that torch's own functions parametrized are
    folded too, those of ``torch.nn.utils.parametrize`` and of the older
    ``torch.nn.utils.weight_norm`` and ``spectral_norm``.

    What the modules gave up is kept until `unfold`, with its memory, but not in them:
    a copy or a file of a folded model is a plain model for good. An optimizer keeps
    the originals, so train after unfolding.

    Args:
        model: any module. What is folded already stays so.

    Returns:
        The model.

    Raises:
        InvalidTensorError: ``DistributedDataParallel`` or FSDP holds tensors of it.

    Example:
        >>> import torch, holdfast
        >>> model = torch.nn.Sequential(holdfast.weight_norm(torch.nn.Linear(3, 3)))
        >>> list(holdfast.fold(model).state_dict())
        ['0.weight', '0.bias']
        >>> model[0]
        Linear(in_features=3, out_features=3, bias=True)
    """
    check_module(model, "fold")
    set_aside(_foldable(model))
    return model


def unfold(model: nn.Module, *, discard: bool = False) -> nn.Module:
    """Make a folded model parametrized again.

    If nothing happened meanwhile, everything is bit for bit what it was, and every
    tensor is the same object. What did happen is carried over: to another device or
    dtype, ``train()``, ``eval()``, freezing; and a weight that has another value, by
    whatever way it was written, is assigned through the right inverse as
    ``module.weight = W`` would be, under the policy of its chain.

    Args:
        model: a folded model, not a copy of one, which is plain.
        discard: drop the changed values instead.

    Returns:
        The model.

    Raises:
        UnknownTensorError: nothing below the model is folded.
        NotInSetError: a changed weight is not in the set that its maps reach. The
            model stays folded, as after any other error.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.orthogonal(torch.nn.Linear(3, 3))
        >>> original = layer.parametrizations.weight.original
        >>> _ = holdfast.unfold(holdfast.fold(layer))
        >>> layer.parametrizations.weight.original is original
        True
    """
    check_module(model, "unfold")
    modules = [module for module in hosts_below(model) if is_aside(module)]
    if not modules:
        raise UnknownTensorError(
            f"Nothing in this {type(model).__name__} is folded. A copy or a file of a "
            "folded model is a plain model: copy or save the unfolded one."
        )
    _put_back(modules, discard=discard)
    return model


def _foldable(model: nn.Module) -> list[nn.Module]:
    """Return the modules to fold, if nothing has lists of the tensors they give up."""
    refuse_lazy(model, awaited)  # maps that come later would find no folded model
    refuse_sharded(
        model,
        "which gathers the parameters that it knows, and would miss those of a folded "
        "model. Fold a plain copy: load `holdfast.plain_state_dict(model)` into it.",
    )
    for path, module in model.named_modules():
        if isinstance(module, DistributedDataParallel):
            raise InvalidTensorError(
                f"`{path or type(model).__name__}` keeps lists of the parameters and "
                "buffers that it synchronizes, and a folded model has others. Fold its "
                "`.module`, and call that."
            )
    return hosts_below(model)


def _put_back(modules: list[nn.Module], *, discard: bool = False) -> None:
    try:
        put_back(modules, discard=discard)
    except Exception as error:
        error.add_note(
            "The model stays folded, with all that was changed. Mend it and unfold, or "
            "drop the changes with `holdfast.unfold(model, discard=True)`."
        )
        raise


class folded(contextlib.ContextDecorator):
    """Fold a model inside this scope, as `fold` and `unfold` do.

    What is folded already when the scope begins is left alone, also at its end, so
    scopes nest. After an exception the model is parametrized again, with the changes
    that its maps can take; what they cannot take is dropped, and the exception says so.

    Args:
        model: any module.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.weight_norm(torch.nn.Linear(3, 3))
        >>> with holdfast.folded(layer):
        ...     print(type(layer).__name__)
        Linear
        >>> type(layer).__name__
        'ParametrizedLinear'
    """

    def __init__(self, model: nn.Module) -> None:
        check_module(model, "folded")
        self.model = model
        self._folded: list[list[nn.Module]] = []

    def __enter__(self) -> nn.Module:
        """Fold, and return the model."""
        self._folded.append(set_aside(_foldable(self.model)))
        return self.model

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_: object
    ) -> None:
        """Unfold."""
        modules = self._folded.pop()
        try:
            _put_back(modules)
        except Exception as other:
            if error is None:
                raise
            put_back(modules, discard=True)
            error.add_note(f"The changes made to a folded model were dropped: {other}")

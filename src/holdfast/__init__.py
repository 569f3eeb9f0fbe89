"""Weights that are computed from free tensors, so that they keep a property.

``import holdfast as parametrize`` runs code written for
``torch.nn.utils.parametrize`` and ``torch.nn.utils.parametrizations``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from . import errors, linalg, maps, recipes, sets
from .core.cache import cached
from .core.chain import ParametrizationList
from .core.classes import is_parametrized, type_before_parametrizations
from .core.disabling import disabled
from .core.joining import join, separate
from .core.memo import remember
from .core.parametrization import Parametrization
from .core.registration import register_parametrization
from .core.removal import remove_parametrizations
from .core.surgery import insert_link, remove_link, reparametrize, replace_link
from .core.transfer import transfer_parametrizations_and_params
from .core.writing import writable
from .model.accumulation import accumulate
from .model.averaging import AverageWeights
from .model.bounding import MoveBounds
from .model.checkpoint import load, save
from .model.decay import DecayWeights, parameter_groups
from .model.folding import fold, folded, unfold
from .model.optim import swap_parameters
from .model.plain import plain_state_dict
from .model.planning import Plan, plan, spec
from .model.rebasing import Rebase
from .model.sparsifying import Sparsify

if TYPE_CHECKING:  # these are loaded when somebody asks for them
    from . import plot
    from .recipes import (
        dora,
        doubly_stochastic,
        hurwitz,
        lora,
        low_rank,
        max_norm,
        orthogonal,
        per_gate,
        positive,
        schur_stable,
        simplex,
        sparse,
        spd,
        spectral_norm,
        sphere,
        stochastic,
        weight_norm,
    )
    from .reporting.nearest import Discovery, discover
    from .reporting.steps import Trace, trace
    from .reporting.summary import Report, report
    from .reporting.training import Watch
    from .reporting.watching import Residual, residuals

__all__ = [
    "AverageWeights",
    "DecayWeights",
    "Discovery",
    "MoveBounds",
    "Parametrization",
    "ParametrizationList",
    "Plan",
    "Rebase",
    "Report",
    "Residual",
    "Sparsify",
    "Trace",
    "Watch",
    "accumulate",
    "cached",
    "disabled",
    "discover",
    "dora",
    "doubly_stochastic",
    "errors",
    "fold",
    "folded",
    "hurwitz",
    "insert_link",
    "is_parametrized",
    "join",
    "linalg",
    "load",
    "lora",
    "low_rank",
    "maps",
    "max_norm",
    "orthogonal",
    "parameter_groups",
    "per_gate",
    "plain_state_dict",
    "plan",
    "plot",
    "positive",
    "register_parametrization",
    "remember",
    "remove_link",
    "remove_parametrizations",
    "reparametrize",
    "replace_link",
    "report",
    "residuals",
    "save",
    "schur_stable",
    "separate",
    "sets",
    "simplex",
    "sparse",
    "spd",
    "spec",
    "spectral_norm",
    "sphere",
    "stochastic",
    "swap_parameters",
    "trace",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
    "unfold",
    "weight_norm",
    "writable",
]


_REPORTING = {
    "Discovery": "nearest",
    "Report": "summary",
    "Residual": "watching",
    "Trace": "steps",
    "Watch": "training",
    "discover": "nearest",
    "report": "summary",
    "residuals": "watching",
    "trace": "steps",
}


def __getattr__(name: str) -> object:
    if name in _REPORTING:
        return getattr(import_module(f".reporting.{_REPORTING[name]}", __name__), name)
    if name == "plot":
        return import_module(".plot", __name__)
    if name in __all__:
        return getattr(recipes, name)
    raise AttributeError(f"module 'holdfast' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

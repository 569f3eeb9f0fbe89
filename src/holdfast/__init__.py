"""Weights that are computed from free tensors, so that they keep a property.

``import holdfast as parametrize`` runs code written for
``torch.nn.utils.parametrize`` and ``torch.nn.utils.parametrizations``.
"""

from . import errors, linalg, maps, sets
from .core.cache import cached
from .core.chain import ParametrizationList
from .core.classes import is_parametrized, type_before_parametrizations
from .core.memo import remember
from .core.parametrization import Parametrization
from .core.registration import register_parametrization
from .core.removal import remove_parametrizations
from .core.transfer import transfer_parametrizations_and_params
from .model.checkpoint import load, save
from .model.optim import swap_parameters
from .model.plain import plain_state_dict
from .model.planning import Plan, plan, spec
from .model.rebasing import Rebase
from .model.sparsifying import Sparsify
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

__all__ = [
    "Parametrization",
    "ParametrizationList",
    "Plan",
    "Rebase",
    "Sparsify",
    "cached",
    "dora",
    "doubly_stochastic",
    "errors",
    "hurwitz",
    "is_parametrized",
    "linalg",
    "load",
    "lora",
    "low_rank",
    "maps",
    "max_norm",
    "orthogonal",
    "per_gate",
    "plain_state_dict",
    "plan",
    "positive",
    "register_parametrization",
    "remember",
    "remove_parametrizations",
    "save",
    "schur_stable",
    "sets",
    "simplex",
    "sparse",
    "spd",
    "spec",
    "spectral_norm",
    "sphere",
    "stochastic",
    "swap_parameters",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
    "weight_norm",
]

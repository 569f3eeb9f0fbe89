"""Recipes: choose a map, register it. Each is one composition of what `maps` has."""

from .entries import (
    doubly_stochastic,
    max_norm,
    positive,
    simplex,
    sparse,
    sphere,
    stochastic,
)
from .matrices import hurwitz, per_gate, schur_stable, spd
from .ranks import dora, lora, low_rank
from .torch_names import orthogonal, spectral_norm, weight_norm

__all__ = [
    "dora",
    "doubly_stochastic",
    "hurwitz",
    "lora",
    "low_rank",
    "max_norm",
    "orthogonal",
    "per_gate",
    "positive",
    "schur_stable",
    "simplex",
    "sparse",
    "spd",
    "spectral_norm",
    "sphere",
    "stochastic",
    "weight_norm",
]

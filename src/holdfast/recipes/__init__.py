"""Recipes: choose a map, register it. Each is one composition of what `maps` has."""

from ..lazily import attach

__getattr__, __dir__ = attach(__name__, __file__)

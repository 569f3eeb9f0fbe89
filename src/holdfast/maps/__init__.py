"""How to get there: parametrizations, by family."""

from ..lazily import attach

__getattr__, __dir__ = attach(__name__, __file__)

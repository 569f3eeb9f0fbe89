"""The mathematics: pure functions of tensors, with batches in the leading dimensions.

Nothing here keeps state, changes an argument or knows about modules.
"""

from ..lazily import attach

__getattr__, __dir__ = attach(__name__, __file__)

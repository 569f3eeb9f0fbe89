"""The mathematics: pure functions of tensors, with batches in the leading dimensions.

Nothing here changes an argument or knows about modules, and nothing is kept from one
call to the next but constants. One thing beside its arguments decides what a function
returns: within the context `tolerances.kept_in`, `tolerance` is that of another type.
"""

from ..lazily import attach

__getattr__, __dir__ = attach(__name__, __file__)

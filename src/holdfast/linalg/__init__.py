"""The mathematics: pure functions of tensors, with batches in the leading dimensions.

Nothing here changes an argument or knows about modules, and nothing is kept from one
call to the next but constants. Two things beside its arguments decide what a function
returns: within the context `tolerances.kept_in`, `tolerance` is that of another type,
and where autocast is on, it may cast products. Maps turn it off around what they
compute, by `full_precision`, and `closed_form` does by itself.
"""

from ..lazily import attach

__getattr__, __dir__ = attach(__name__, __file__)

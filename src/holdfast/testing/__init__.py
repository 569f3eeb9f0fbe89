"""The laws of the library, for maps of your own: import it as ``holdfast.testing``."""

from ..errors import LawError, UnknownLawError
from .checker import Outcome, Verdict, check_parametrization

__all__ = [
    "LawError",
    "Outcome",
    "UnknownLawError",
    "Verdict",
    "check_parametrization",
]

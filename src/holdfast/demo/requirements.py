"""Packages that the demos need and the library does not."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import HoldfastError

# The name that Python imports, and the one that pip installs.
PACKAGES = {
    "click": "click",
    "matplotlib": "matplotlib",
    "rich": "rich",
    "sklearn": "scikit-learn",
}


class MissingPackagesError(HoldfastError, ImportError):
    """A demo's packages are not installed."""


def require_packages() -> None:
    """Raise an error that says what to install, if anything is missing."""
    missing = [name for module, name in PACKAGES.items() if find_spec(module) is None]
    if missing:
        names = " ".join(missing)
        raise MissingPackagesError(
            f"this command needs packages that are not installed: {names}. "
            f"Install them with `python -m pip install {names}`; "
            "the extra `holdfast[demo]` has them all."
        )

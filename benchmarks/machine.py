"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

FOLDER = Path(__file__).parent


def facts() -> Iterator[tuple[str, str]]:
    """Describe what it ran on."""
    yield "date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    yield "processor", f"{processor()}, {os.cpu_count()} cores"
    yield "system", f"{platform.system()} {platform.machine()}"
    yield "load at the start", f"{os.getloadavg()[0]:.2f}"
    yield "holdfast", version("holdfast")
    yield "torch", torch.__version__
    yield "python", platform.python_version()


def version_of(package: str) -> str:
    """Return the version of a package, or that it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, "unknown processor")

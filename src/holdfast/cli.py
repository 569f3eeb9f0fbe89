"""The command ``holdfast``: reads the arguments, turns errors into messages."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from .demo.output import OutputError
from .demo.requirements import MissingPackagesError, require_packages
from .errors import CheckpointError

if TYPE_CHECKING:
    import click

FAILED, INTERRUPTED = 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        arguments: what follows ``holdfast`` on the command line; by default that.

    Returns:
        0, or 1 for a failure, 2 for wrong arguments, 130 after ctrl-C.
    """
    try:
        return _run(arguments)
    except (CheckpointError, MissingPackagesError, OutputError) as error:
        return _fail(f"Error: {error}", FAILED)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _fail(f"Error: {error.strerror}", FAILED)
    except KeyboardInterrupt:
        return _fail("Interrupted.", INTERRUPTED)


def _run(arguments: Sequence[str] | None) -> int:
    """Leave the arguments to click, but not the way its errors end the process."""
    try:
        import click
    except ModuleNotFoundError:
        require_packages()
        raise
    try:
        status = _commands().main(arguments, "holdfast", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as abort:
        raise KeyboardInterrupt from abort
    return status if isinstance(status, int) else 0


def _commands() -> click.Group:
    """Return the tree of commands; the modules that need click are imported here."""
    import click

    from .commands.bench import bench
    from .commands.check import check
    from .commands.convert import convert
    from .commands.report import report
    from .demo.copying.command import copying
    from .demo.digits.command import digits
    from .demo.lipschitz.command import lipschitz
    from .demo.lora.command import lora
    from .demo.prune.command import prune
    from .demo.spd.command import spd
    from .demo.stiefel.command import stiefel

    demo = click.Group(
        "demo",
        commands=[copying, digits, lipschitz, lora, prune, spd, stiefel],
        help="Train something small, to see what a parametrization does.",
    )
    return click.version_option(_version(), prog_name="holdfast")(
        click.Group(
            "holdfast",
            commands=[demo, bench, check, convert, report],
            help="Parametrizations of PyTorch weights that hold.",
            context_settings={"help_option_names": ["-h", "--help"]},
        )
    )


def _version() -> str:
    try:
        return metadata.version("holdfast")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"{message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())

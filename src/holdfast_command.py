"""The command ``holdfast``, until torch is there: ctrl-C ends it without a traceback.

Importing anything of holdfast imports torch, which takes a second or more. So this is a
module of its own.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> int:
    """Run the command and return its exit status; see `holdfast.cli.main`."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # and not ignored, as in the background
        signal.signal(signal.SIGINT, _leave)
    from holdfast.cli import main

    signal.signal(signal.SIGINT, before)
    return main()


def _leave(_: int, __: FrameType | None) -> None:
    """End at once: some extensions turn an exception in their import into others."""
    os.write(sys.stderr.fileno(), b"Interrupted.\n")
    os._exit(INTERRUPTED)

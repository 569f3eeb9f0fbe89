"""`import holdfast` costs at most 50 ms beyond `import torch`.

Each import runs in a fresh interpreter, in turns with one that imports torch alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from .reporting import OURS, TORCHS, Report, main, time_text
from .timing import Effort, Spread

TARGET_MS = 50.0
CLOCK = "import time; start = time.process_time();"
STATEMENTS = {
    TORCHS: f"{CLOCK} import torch; print(time.process_time() - start)",
    OURS: f"{CLOCK} import torch; middle = time.process_time(); import holdfast;"
    "end = time.process_time(); print(end - start, end - middle)",
}


def interpreter(*arguments: str) -> subprocess.CompletedProcess[str]:
    # An installed package has its bytecode, so ours may be written.
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=kept)


def slowest_imports(count: int = 8) -> list[list[str]]:
    """Return what `-X importtime` shows under `import holdfast`, the slowest first."""
    marker = "import torch, sys; print('from here', file=sys.stderr); import holdfast"
    lines = interpreter("-X", "importtime", "-c", marker).stderr
    lines = lines.partition("from here")[2].splitlines()
    found = [re.fullmatch(r"import time: +(\d+) \| +(\d+) \| +(\S+)", x) for x in lines]
    times = sorted(((int(m[1]), m[3]) for m in found if m), reverse=True)
    return [[name, time_text(micro / 1e6)] for micro, name in times[:count]]


def measure(effort: Effort) -> Report:
    """Time imports in fresh interpreters, in turns."""
    rounds = 1 if effort.quick else 21
    if not effort.quick:
        interpreter("-c", STATEMENTS[OURS])  # writes the bytecode
    whole: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    beyond: list[float] = []
    for _ in range(rounds):
        for name, statement in STATEMENTS.items():
            seconds = [float(s) for s in interpreter("-c", statement).stdout.split()]
            whole[name].append(seconds[0])
            beyond += seconds[1:]
    claim = "`import holdfast` costs at most 50 ms beyond `import torch`"
    columns = ["what", "median", "quartiles", "least", "target"]
    report = Report(claim, columns, f"Fresh interpreters in turns, {rounds} rounds.")
    samples = {
        "import torch": whole[TORCHS],
        "import torch, then holdfast": whole[OURS],
        "holdfast's part": beyond,
    }
    for what, sample in samples.items():
        spread = Spread.of(sample)
        between = f"{time_text(spread.low)} .. {time_text(spread.high)}"
        times = [time_text(spread.median), between, time_text(spread.least)]
        report.rows.append([what, *times, ""])
    median = Spread.of(beyond).median * 1e3
    report.rows[-1][-1] = report.judge("import", median, TARGET_MS, " ms")
    report.raw = samples
    if effort.quick:
        return report
    slowest = ", ".join(f"`{name}` {time}" for name, time in slowest_imports())
    report.notes.append(f"Its slowest modules (own time, `-X importtime`): {slowest}.")
    return report


if __name__ == "__main__":
    main(measure)

"""Tables of what was measured, with the targets beside it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .timing import QUICK, Comparison, Effort

OURS, TORCHS = "holdfast", "torch"


@dataclass(frozen=True)
class Verdict:
    """A measured number, and the largest that it may be."""

    what: str
    measured: float
    target: float
    unit: str = "x"

    @property
    def passed(self) -> bool:
        return self.measured <= self.target

    def __str__(self) -> str:
        mark = "pass" if self.passed else "FAIL"
        return f"<= {self.target:g}{self.unit} {mark}"


@dataclass
class Report:
    """One claim with the table that shows whether it holds.

    Args:
        claim: one sentence.
        columns: the head of the table.
        setting: what was measured, in a sentence or two.
    """

    claim: str
    columns: list[str]
    setting: str = ""
    rows: list[list[str]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def judge(self, what: str, measured: float, target: float, unit: str = "x") -> str:
        """Hold a number against its target; return the cell that says how it went."""
        self.verdicts.append(Verdict(what, measured, target, unit))
        return str(self.verdicts[-1])

    def __str__(self) -> str:
        parts = [self.claim, self.setting, table(self.columns, self.rows), *self.notes]
        return "\n\n".join(part for part in parts if part)

    def as_json(self) -> str:
        verdicts = [{**asdict(v), "passed": v.passed} for v in self.verdicts]
        return json.dumps({**self.__dict__, "verdicts": verdicts})

    @classmethod
    def of_json(cls, text: str) -> Report:
        fields = json.loads(text)
        for verdict in fields["verdicts"]:
            del verdict["passed"]
        verdicts = [Verdict(**verdict) for verdict in fields.pop("verdicts")]
        return cls(verdicts=verdicts, **fields)


def times_report(claim: str, base: str, setting: str = "") -> Report:
    """Return an empty report for `add`."""
    columns = ["case", "contestant", "median", "quartiles", f"/ {base}", "quartiles"]
    return Report(claim, [*columns, "of minima", "to torch", "target"], setting)


def add(
    report: Report, case: str, comparison: Comparison, target: float | None = None
) -> None:
    """Add the rows of a comparison; the target is for our ratio to the base."""
    base = comparison.base
    for name in comparison.seconds:
        mine, ratio = comparison.spread(name), comparison.ratios(name, base)
        beside = ""
        if TORCHS in comparison.seconds and TORCHS not in (name, base):
            beside = f"{comparison.ratios(name, TORCHS).median:.2f}"
        verdict = ""
        if name == OURS and target is not None:
            verdict = report.judge(f"{case}: / {base}", ratio.median, target)
        report.rows.append(
            [
                case,
                name,
                time_text(mine.median),
                f"{time_text(mine.low)} .. {time_text(mine.high)}",
                f"{ratio.median:.2f}",
                f"{ratio.low:.2f} .. {ratio.high:.2f}",
                f"{comparison.ratio_of_minima(name, base):.2f}",
                beside if name != base else "",
                verdict,
            ]
        )
    report.raw[case] = comparison.seconds


def time_text(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that reads well in a terminal and in Markdown."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [columns, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(f"{c:{w}}" for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def main(
    measure: Callable[[Effort], Report], arguments: Sequence[str] | None = None
) -> None:
    """Run a benchmark from the command line."""
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("--quick", action="store_true", help="a rough answer, at once")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    options = parser.parse_args(arguments)
    report = measure(QUICK if options.quick else Effort())
    print(report.as_json() if options.json else report)

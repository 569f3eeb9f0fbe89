"""Asking whether a module is parametrized costs well under a microsecond (X4)."""

from __future__ import annotations

from torch import nn

from .reporting import OURS, Report, add, main, times_report
from .subjects import LIBRARIES, Identity
from .timing import Contestant, Effort, compare

TARGET_NS = 500
QUESTIONS = {
    "is_parametrized(plain)": "ask(plain)",
    "is_parametrized(parametrized)": "ask(layer)",
    'is_parametrized(parametrized, "weight")': "ask(layer, 'weight')",
    "type_before_parametrizations(plain)": "before(plain)",
    "type_before_parametrizations(parametrized)": "before(layer)",
}


def measure(effort: Effort) -> Report:
    """Time the questions that pruning tools ask hundreds of thousands of times."""
    claim = "Asking whether a module is parametrized costs well under a microsecond"
    report = times_report(claim, "torch", "`nn.Linear(8, 8)`, plain or parametrized.")
    for case, statement in QUESTIONS.items():
        contestants = []
        for name, library in LIBRARIES.items():
            layer = nn.Linear(8, 8)
            library.register_parametrization(layer, "weight", Identity())
            names = {
                "plain": nn.Linear(8, 8),
                "layer": layer,
                "ask": library.is_parametrized,
                "before": library.type_before_parametrizations,
            }
            contestants.append(Contestant(name, statement, names))
        comparison = compare(contestants, effort)
        add(report, case, comparison)
        median = comparison.spread(OURS).median * 1e9
        report.rows[-1][-1] = report.judge(case, median, TARGET_NS, " ns")
    return report


if __name__ == "__main__":
    main(measure)

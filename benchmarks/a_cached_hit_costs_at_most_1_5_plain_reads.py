"""Inside `cached()` a read costs at most 1.5 plain reads, all checks made (R4)."""

from .reporting import Report, main
from .subjects import reads
from .timing import Effort


def measure(effort: Effort) -> Report:
    """Time hits inside `cached()` beside plain reads."""
    claim = "A hit inside cached() costs at most 1.5 plain reads"
    return reads(claim, effort, maps=1, target=1.5, scoped=True)


if __name__ == "__main__":
    main(measure)

"""Reading through three maps that do nothing costs at most 3 plain reads (R4)."""

from .reporting import Report, main
from .subjects import reads
from .timing import Effort


def measure(effort: Effort) -> Report:
    """Time reads of three chained identities beside plain reads."""
    claim = "Reading three chained maps costs at most 3 plain reads"
    return reads(claim, effort, maps=3, target=3.0)


if __name__ == "__main__":
    main(measure)

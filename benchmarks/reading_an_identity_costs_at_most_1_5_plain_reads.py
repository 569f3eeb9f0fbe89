"""Reading through a map that does nothing costs at most 1.5 plain reads (R4)."""

from .reporting import Report, main
from .subjects import reads
from .timing import Effort


def measure(effort: Effort) -> Report:
    """Time reads of an identity parametrization beside plain reads."""
    claim = "Reading an identity parametrization costs at most 1.5 plain reads"
    return reads(claim, effort, maps=1, target=1.5)


if __name__ == "__main__":
    main(measure)

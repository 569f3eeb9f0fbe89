"""Lines of figures as text, HTML, JSON and data frames."""

from __future__ import annotations

import html
import io
import json
import math
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ..model.showing import aligned

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table as RichTable

_NARROWEST = 8  # a column of words
_LONG = 999_999.5  # beyond it a number is spelt with an exponent
_WIDEST = 10_000  # a table that no terminal limits
# In a narrower window lines wrap; a figure that is broken in two is hard to read.
_NARROWEST_TABLE = 130


class Line(NamedTuple):
    """A line of a table, and whether something is wrong with what it tells."""

    cells: tuple[str, ...]
    wrong: bool = False


class Table(ABC):
    """Figures that print as a table: by rich where it is installed, else plainly.

    Attributes:
        words: the columns that go to the left; the others are numbers.
    """

    words: ClassVar[frozenset[str]]

    @abstractmethod
    def records(self) -> list[dict[str, object]]:
        """Return the lines as data: names, numbers, ``None``."""

    @abstractmethod
    def head(self) -> tuple[str, ...]:
        """Return what stands above the columns."""

    @abstractmethod
    def lines(self) -> list[Line]:
        """Return the lines as they print."""

    @abstractmethod
    def remarks(self) -> list[str]:
        """Return what stands below the table."""

    def to_json(self) -> str:
        """Return the lines as JSON; numbers that it lacks are ``"inf"`` and ``"nan"``.

        Example:
            >>> import torch, holdfast
            >>> holdfast.report(torch.nn.Linear(2, 2)).to_json()
            '[]'
        """
        records = (json.dumps(jsonable(record)) for record in self.records())
        return "[" + ",\n ".join(records) + "]"

    def to_pandas(self) -> pd.DataFrame:
        """Return the lines as a data frame; this needs pandas.

        Example:
            >>> import torch, holdfast
            >>> layer = holdfast.weight_norm(torch.nn.Linear(2, 3))
            >>> list(holdfast.report(layer).to_pandas()["free"])
            [9]
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "`to_pandas` needs a package that is not installed. Install it with "
                "`python -m pip install pandas`; `to_json` needs nothing."
            ) from error
        return pd.DataFrame(self.records(), columns=self._fields())

    @abstractmethod
    def _fields(self) -> list[str]:
        """Return the names of the data, which are there without a line too."""

    def __str__(self) -> str:
        if not self.lines():
            return "\n".join(self.remarks())
        if find_spec("rich") is None:
            text = aligned([self.head(), *(line.cells for line in self.lines())])
        else:
            text = _printed(self._rich_table(whole=True))
        return "\n".join((text, *self.remarks()))

    def __rich__(self) -> RichTable:
        """Return what rich prints."""
        return self._rich_table(whole=False)

    def _rich_table(self, *, whole: bool) -> RichTable:
        """Return rich's table, whose figures may be broken where they are not whole."""
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape
        from rich.table import Table as RichTable

        table = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for name in self.head():
            left = name in self.words
            table.add_column(
                name,
                justify="left" if left else "right",
                overflow="fold",
                no_wrap=whole and not left,
                min_width=_NARROWEST if left else None,
            )
        for line in self.lines():
            style = "bold red" if line.wrong else None
            table.add_row(*map(escape, line.cells), style=style)
        return table

    def _repr_html_(self) -> str:
        """Return the table for notebooks."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.head())
        body = "".join(
            f"<tr{_MARKED if line.wrong else ''}>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in line.cells)
            + "</tr>"
            for line in self.lines()
        )
        notes = "".join(f"<p>{html.escape(remark)}</p>" for remark in self.remarks())
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return table + notes


_MARKED = ' style="color: #b00020; font-weight: bold"'


def _printed(table: RichTable) -> str:
    """Return rich's table as text, in the width of the terminal if there is one."""
    from rich.console import Console

    columns = shutil.get_terminal_size().columns if _is_watched() else _WIDEST
    width = max(columns, _NARROWEST_TABLE)
    # rich draws lines that the stream's encoding has
    file = io.TextIOWrapper(io.BytesIO(), encoding=_encoding())
    console = Console(file=file, width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    lines = (line.rstrip() for line in capture.get().splitlines())
    return "\n".join(line for line in lines if line)


def _is_watched() -> bool:
    """Tell whether a terminal shows what is printed.

    There may be no stream at all, or one that was put in its place to keep a log.
    """
    is_terminal = getattr(sys.stdout, "isatty", None)
    return is_terminal is not None and is_terminal()


def _encoding() -> str:
    """Return that of what is printed: a file on Windows, say, has no line drawings."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def jsonable(value: object) -> object:
    """Return data without the numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(each) for each in value]
    return value


def short(number: float | None, digits: int = 3) -> str:
    """Return a number with a few digits, nothing for ``None``.

    Below a million no digit before the point is left out.

    Example:
        >>> short(0.000123456), short(1234.5), short(None)
        ('0.000123', '1234', '')
    """
    if number is None:
        return ""
    whole = 10**digits - 0.5 <= abs(number) < _LONG
    return f"{number:.0f}" if whole else f"{number:.{digits}g}"


def compared(residual: float | None, tolerance: float | None) -> str:
    """Return a residual beside its tolerance.

    Example:
        >>> compared(1e-7, 1e-5), compared(0.5, 1e-5), compared(0.5, None)
        ('1e-07 <= 1e-05', '0.5 > 1e-05', '0.5')
    """
    if residual is None:
        return ""
    if tolerance is None or residual != residual:  # which NaN is
        return short(residual, 2)
    sign = "<=" if residual <= tolerance else ">"
    return f"{short(residual, 2)} {sign} {short(tolerance, 2)}"


def spelled(shape: Sequence[int]) -> str:
    """Return a shape.

    Example:
        >>> spelled((3, 2)), spelled(())
        ('3 x 2', 'scalar')
    """
    return " x ".join(map(str, shape)) or "scalar"

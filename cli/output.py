"""All that is printed. Text that others wrote reaches a terminal, a pipe or a CSV through here only."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from unicodedata import category

from cli.exits import Failure

Cell = str | int | None


class Figure(str):
    """A number that we wrote ourselves, such as -12.50: a CSV shows it as it is, for nobody typed it."""

    __slots__ = ()


def visible(text: str, *, keep: str = "\n\t") -> str:
    r"""Make visible what would otherwise act on a terminal or hide in it: `\x1b`, `<U+202E>`.

    Letters, signs and spaces of all scripts stay, and so do the characters in `keep`; control and format
    characters (C0, C1, bidirectional marks, zero-width ones), line separators, half surrogates, private and
    unassigned code points do not.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep or category(c) == "Zs" else _escaped(c) for c in text)


def one_line(text: object) -> str:
    r"""Make a value fit for a table cell or for the middle of a sentence: newlines and tabs show as `\n`."""
    return visible(str(text), keep="")


def _escaped(character: str) -> str:
    names = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    point = ord(character)
    return names.get(character) or (f"\\x{point:02x}" if point < 0x100 else f"<U+{point:04X}>")


class LogText:
    r"""Turn the bytes of a log, in chunks of any size, into text that is safe to show.

    A character split over two chunks is put together; bytes that are no UTF-8 show as `\xff`; a carriage
    return, with which progress bars overwrite their line, starts a new line instead.
    """

    def __init__(self) -> None:
        import codecs

        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._after_return = False

    def feed(self, chunk: bytes, *, final: bool = False) -> str:
        """Give the text of the next bytes; `final` flushes a character that was cut off."""
        text = self._decoder.decode(chunk, final)
        if self._after_return and text.startswith("\n"):
            text = text[1:]
        if text:
            self._after_return = text.endswith("\r")
        return visible(text.replace("\r\n", "\n").replace("\r", "\n"))


def say(text: str) -> None:
    """Print a result on stdout."""
    sys.stdout.write(visible(text) + "\n")


def note(text: str) -> None:
    """Print a remark on stderr, where it does not disturb what a pipe carries."""
    sys.stdout.flush()
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()


def as_json(value: object) -> str:
    """Give JSON in plain ASCII, so that no control character can reach a terminal through it."""
    import json

    return json.dumps(value, indent=2, ensure_ascii=True).replace("\x7f", "\\u007f")


def complain(failure: Failure, *, in_json: bool) -> None:
    """Print a failure on stderr: one sentence and, on a second line, what would help."""
    if in_json:
        note(as_json(failure.as_json()))
        return
    note(f"idf-compute: {visible(failure.sentence, keep='')}")
    if failure.remedy:
        note(f"  {visible(failure.remedy, keep='')}")


class Column(NamedTuple):
    """A column of a table; on a narrow terminal the one with the largest `spare` is left out first."""

    title: str
    right: bool = False
    spare: int = 0
    shrinks: bool = False
    """Whether its text may be cut with an ellipsis, after the spare columns are gone."""


_GAP = 2
_SHRUNK = 12
"""What a column that may shrink keeps at least."""
_STYLES = {
    "succeeded": "green", "running": "cyan", "failed": "red", "timed_out": "red", "out_of_memory": "red",
    "node_failed": "red", "lost": "red", "preempted": "yellow", "cancelled": "yellow",
}  # fmt: skip


def table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table: aligned plain text into a pipe, fitted to the width and coloured on a terminal."""
    cells = [["-" if cell is None else one_line(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _table_on_terminal(columns, cells)
        return
    widths = _widths(columns, cells)
    for line in [[column.title for column in columns], *cells]:
        sys.stdout.write(_aligned(columns, widths, line) + "\n")


def _widths(columns: Sequence[Column], cells: list[list[str]]) -> list[int]:
    return [max([len(column.title), *(len(row[i]) for row in cells)]) for i, column in enumerate(columns)]


def _aligned(columns: Sequence[Column], widths: list[int], line: list[str]) -> str:
    parts = (
        text.rjust(width) if column.right else text.ljust(width)
        for column, width, text in zip(columns, widths, line, strict=True)
    )
    return (" " * _GAP).join(parts).rstrip()


def _table_on_terminal(columns: Sequence[Column], cells: list[list[str]]) -> None:
    """Print a table with rich, in the columns and widths that the terminal has room for."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widths = [max([len(columns[i].title), *(cell_len(row[i]) for row in cells)]) for i in range(len(columns))]
    grid = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    kept = fitting(columns, widths, console.width)
    for i, width in kept.items():
        justify: Any = "right" if columns[i].right else "left"
        grid.add_column(Text(columns[i].title), justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for row in cells:
        grid.add_row(*(Text(row[i], style=_STYLES.get(row[i], "")) for i in kept))
    console.print(grid)


def fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> dict[int, int]:
    """Give which columns to show on `width` characters, and how wide: spare ones go, then others shrink."""
    kept = dict(enumerate(widths))

    def needed(least: int) -> int:
        shrunk = (min(kept[i], least) if columns[i].shrinks else kept[i] for i in kept)
        return sum(shrunk) + _GAP * (len(kept) - 1)

    while needed(_SHRUNK) > width and any(columns[i].spare for i in kept):
        del kept[max(kept, key=lambda i: columns[i].spare)]
    while needed(max(kept.values())) > width and any(columns[i].shrinks and kept[i] > _SHRUNK for i in kept):
        widest = max((i for i in kept if columns[i].shrinks), key=lambda i: kept[i])
        kept[widest] -= 1
    return kept


def bar(part: int, whole: int, width: int = 20) -> str:
    """Draw a share as a bar. Anything above nothing shows at least one block."""
    filled = 0 if whole <= 0 or part <= 0 else max(1, min(width, part * width // whole))
    return "█" * filled + "░" * (width - filled)


def csv_cell(value: Cell) -> str:
    """Keep a spreadsheet from reading a cell as a formula: an apostrophe before = + - @ tab and CR."""
    if value is None:
        return ""
    if isinstance(value, int | Figure):
        return str(value)
    text = f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
    return one_line(text)


def csv(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print CSV (RFC 4180, lines ended by a newline) on stdout."""
    from csv import writer

    lines = writer(sys.stdout, lineterminator="\n")
    lines.writerow(header)
    lines.writerows([csv_cell(cell) for cell in row] for row in rows)


def listed(items: list[dict[str, Any]], *, in_json: bool, columns: Sequence[Column], rows: Any) -> None:
    """Print a list as JSON or as a table, one row per item by `rows(item)`."""
    if in_json:
        say(as_json(items))
    else:
        table(columns, [rows(item) for item in items])
        if not items:
            note("there is nothing to list")

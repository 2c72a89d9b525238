"""The CSV file of a cohort's awards, read whole: every row as values, or every reason why it cannot be. Pure.

Line 1 is the header; a row that is empty throughout is passed over, as spreadsheets leave such rows at the end.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from difflib import get_close_matches
from io import StringIO
from typing import Any

from pydantic import TypeAdapter, ValidationError

from broker.errors import BadRequest
from broker.identifiers import (
    checked_departement,
    checked_email,
    checked_foreign,
    checked_naf,
    checked_siret,
)
from broker.schemas import ActReference, Confidentiality, Credits, Day, Label, Nature, RowFault, Slug
from broker.schemas.organisations import Kind, Size
from quotas.amounts import CREDITS_PER_HOUR

ROWS_MAX = 2000
COLUMNS = (
    "organisation", "full_name", "siret", "foreign_country", "foreign_id", "kind", "size", "naf", "departement",
    "project", "lead", "lead_full_name", "lead_email", "hours", "from", "to", "confidentiality", "nature",
    "act_reference", "act_on", "declared_on", "declaration",
)  # fmt: skip
FACTS = ("full_name", "kind", "size", "siret", "foreign_country", "foreign_id", "naf", "departement")
NEEDED = ("organisation", "project", "lead", "hours", "from", "to")
_HOURS = re.compile(r"([0-9]{1,12})(?:[.,]([0-9]{1,9}))? ?h?", re.ASCII)
_FRENCH_DAY = re.compile(r"([0-9]{2})/([0-9]{2})/([0-9]{4})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the file, each value checked alone."""

    number: int
    organisation: str
    facts: Mapping[str, Any]
    """What is said of the organisation: full_name, kind, size, siret, foreign_country, foreign_id, naf, departement."""
    project: str
    confidentiality: str | None
    nature: str | None
    lead: str
    lead_full_name: str | None
    lead_email: str | None
    credits: int
    start_on: date
    end_on: date
    act_reference: str | None
    act_on: date | None
    declared_on: date | None
    """When the organisation declared that it had no State aid; one that had some declares it by itself before."""
    declaration: str | None
    """Where that declaration is kept."""


def read(text: str) -> tuple[list[Line], list[RowFault]]:
    """Return the rows that can be read and the reasons why others cannot, in the order of the file.

    Raises:
        BadRequest: it is no CSV, has no header or a column that nobody knows, or too many rows.
    """
    rows = _rows(text)
    _, header = next(rows, (1, []))
    columns = _columns(header)
    lines: list[Line] = []
    faults: list[RowFault] = []
    for count, (number, cells) in enumerate(rows):
        if count >= ROWS_MAX:
            raise BadRequest(f"the file has more than {ROWS_MAX} rows", "split it")
        found = _line(number, columns, cells)
        if isinstance(found, Line):
            lines.append(found)
        else:
            faults += found
    if not lines and not faults:
        raise BadRequest("the file has a header and no row", "add a row for each award")
    return lines, faults


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows with the line that each begins in; the delimiter is the header's."""
    plain = text.removeprefix("\ufeff")
    first, _, _ = plain.partition("\n")
    reader = csv.reader(StringIO(plain, newline=""), delimiter=";" if ";" in first else ",", strict=True)
    number = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield number, [cell.strip() for cell in cells]
            number = reader.line_num + 1
    except csv.Error as error:
        raise BadRequest(f"line {reader.line_num} is no CSV: {error}", "save it as CSV (UTF-8)") from None


def _columns(header: Sequence[str]) -> list[str]:
    columns = [name.lower() for name in header]
    if not any(name in COLUMNS for name in columns):
        raise BadRequest(
            "the file has no header that names its columns", "`idf-compute award import --template` prints one"
        )
    for name in columns:
        if name not in COLUMNS:
            near = get_close_matches(name, COLUMNS, 1, 0.4)
            shown = name[:40] or "without a name"
            raise BadRequest(
                f"there is no column {shown}",
                f"did you mean {near[0]}?" if near else f"the columns are {', '.join(COLUMNS)}",
            )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise BadRequest(f"the column {twice[0]} stands there twice", "leave one of them out")
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise BadRequest(f"the file lacks the column {missing[0]}", f"a file needs {', '.join(NEEDED)}")
    return columns


def _line(number: int, columns: Sequence[str], cells: Sequence[str]) -> Line | list[RowFault]:
    if len(cells) != len(columns):
        rule = f"the row has {len(cells)} values and the header {len(columns)} columns"
        return [RowFault(line=number, column=None, rule=rule, remedy="quote a value that holds the delimiter")]
    given = {name: cell for name, cell in zip(columns, cells, strict=True) if cell}
    values: dict[str, Any] = {}
    faults = [
        RowFault(line=number, column=name, rule="it is empty", remedy="give it") for name in NEEDED if name not in given
    ]
    for name, cell in given.items():
        try:
            values[name] = _READERS[name](cell)
        except ValueError as error:
            faults.append(RowFault(line=number, column=name, rule=str(error)))
    faults += _together(number, given, values)
    return faults or _made(number, values)


def _together(number: int, given: Mapping[str, str], values: dict[str, Any]) -> Iterator[RowFault]:
    """Yield what is wrong between the values of a row, and put its foreign identifier into its form."""
    country, foreign = given.get("foreign_country"), given.get("foreign_id")
    if (country is None) != (foreign is None):
        yield RowFault(line=number, column="foreign_id", rule="foreign_country and foreign_id go together",
                       remedy="give both, or none")  # fmt: skip
    elif country is not None and foreign is not None:
        if "siret" in given:
            yield RowFault(line=number, column="foreign_id",
                           rule="an organisation has a SIRET or a foreign identifier, not both",
                           remedy="give the one it has")  # fmt: skip
        try:
            values["foreign_country"], values["foreign_id"] = checked_foreign(country, foreign)
        except ValueError as error:
            yield RowFault(line=number, column="foreign_id", rule=str(error))
    yield from _pairs(number, given)
    if "from" in values and "to" in values and values["to"] < values["from"]:
        yield RowFault(line=number, column="to", rule=f"{values['to']} lies before from, {values['from']}",
                       remedy=f"give {values['from']} or later")  # fmt: skip


def _pairs(number: int, given: Mapping[str, str]) -> Iterator[RowFault]:
    for one, other in (("act_reference", "act_on"), ("declaration", "declared_on")):
        if (one in given) != (other in given):
            yield RowFault(line=number, column=other, rule=f"{one} and {other} go together",
                           remedy="give both, or none")  # fmt: skip


def _made(number: int, values: Mapping[str, Any]) -> Line:
    return Line(
        number=number,
        organisation=values["organisation"],
        facts={name: values[name] for name in FACTS if name in values},
        project=values["project"],
        confidentiality=values.get("confidentiality"),
        nature=values.get("nature"),
        lead=values["lead"],
        lead_full_name=values.get("lead_full_name"),
        lead_email=values.get("lead_email"),
        credits=values["hours"],
        start_on=values["from"],
        end_on=values["to"],
        act_reference=values.get("act_reference"),
        act_on=values.get("act_on"),
        declared_on=values.get("declared_on"),
        declaration=values.get("declaration"),
    )


def _of_type(type_: Any, what: str) -> Callable[[str], Any]:
    adapter: TypeAdapter[Any] = TypeAdapter(type_)

    def read_as(cell: str) -> Any:
        try:
            return adapter.validate_python(cell)
        except ValidationError:
            raise ValueError(f"{cell[:60]} is {what}") from None

    return read_as


def _one_of(*words: str) -> Callable[[str], str]:
    def read_word(cell: str) -> str:
        if cell.lower() not in words:
            raise ValueError(f"{cell[:60]} is none of {', '.join(words)}")
        return cell.lower()

    return read_word


def _credits(cell: str) -> int:
    match = _HOURS.fullmatch(cell)
    if match is None:
        raise ValueError(f"{cell[:60]} are no hours: write 500 or 1.5")
    amount = Decimal(f"{match[1]}.{match[2] or 0}") * CREDITS_PER_HOUR
    if amount != amount.to_integral_value():
        raise ValueError(f"{cell} hours are no whole number of credits: 1 h is 3,600,000 credits")
    try:
        value: int = TypeAdapter(Credits).validate_python(int(amount))
    except ValidationError:
        raise ValueError(f"{cell} hours cannot be awarded: give more than 0 h and at most 2.5e9 h") from None
    return value


def _day(cell: str) -> date:
    french = _FRENCH_DAY.fullmatch(cell)
    iso = f"{french[3]}-{french[2]}-{french[1]}" if french else cell
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", iso, re.ASCII):
        raise ValueError(f"{cell[:60]} is no day: write 2027-01-31 or 31/01/2027")
    try:
        day: date = TypeAdapter(Day).validate_python(date.fromisoformat(iso))
    except ValueError:
        raise ValueError(f"{cell} is no day of the calendar from 1970 to 9000") from None
    return day


def _words(type_: Any) -> tuple[str, ...]:
    return tuple(type_.__args__)


_slug = _of_type(Slug, "no name: lower case letters, digits and hyphens, at most 40")
_label = _of_type(Label, "no text of at most 200 characters without control characters")
_act = _of_type(ActReference, "no reference of at most 100 characters, without controls")
_READERS: dict[str, Callable[[str], Any]] = {
    "organisation": _slug,
    "full_name": _label,
    "siret": checked_siret,
    "foreign_country": str,
    "foreign_id": str,
    "kind": _one_of(*_words(Kind)),
    "size": _one_of(*_words(Size)),
    "naf": checked_naf,
    "departement": checked_departement,
    "project": _slug,
    "lead": _slug,
    "lead_full_name": _label,
    "lead_email": checked_email,
    "hours": _credits,
    "from": _day,
    "to": _day,
    "confidentiality": _one_of(*_words(Confidentiality)),
    "nature": _one_of(*_words(Nature)),
    "act_reference": _act,
    "act_on": _day,
    "declared_on": _day,
    "declaration": _label,
}
"""How each column is read; each raises ValueError, one sentence that says what would pass."""

"""Cursor pagination: the cursor is the last id or name of a page, opaque to clients."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import Select

from broker.errors import BadRequest
from broker.schemas import Page

T = TypeVar("T", bound=BaseModel)
Limit = Annotated[int, Query(ge=1, le=500, description="Items on a page")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before")]


def after(
    statement: Select[Any],
    column: Any,
    cursor: str | None,
    limit: int,
    *,
    newest_first: bool = False,
    numbered: bool = False,
) -> Select[Any]:
    """Restrict a statement to the page that follows a cursor, and one row more, to know whether it is the last.

    `numbered` says that the column holds numbers.

    Raises:
        BadRequest: the cursor is none of ours.
    """
    if cursor is not None:
        last = _number(_decoded(cursor)) if numbered else _decoded(cursor)
        statement = statement.where(column < last if newest_first else column > last)
    return statement.order_by(column.desc() if newest_first else column).limit(limit + 1)


def page(items: Sequence[T], limit: int, key: str) -> Page[T]:
    """Make a page of what `after` returned; `key` is the attribute that it was ordered by."""
    more = len(items) > limit
    shown = list(items[:limit])
    cursor = urlsafe_b64encode(str(getattr(shown[-1], key)).encode()).decode() if more else None
    return Page(items=shown, next_cursor=cursor)


def number_after(cursor: str | None) -> int:
    """Return the number that the page before ended with, -1 on the first page; for lists made without a statement.

    Raises:
        BadRequest: the cursor is none of ours.
    """
    return -1 if cursor is None else _number(_decoded(cursor))


def _decoded(cursor: str) -> str:
    try:
        last = urlsafe_b64decode(cursor.encode()).decode()
    except (BadBase64, ValueError):
        last = ""
    if not last.isprintable() or not last:
        raise _not_ours()
    return last


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _not_ours()
    return int(text)


def _not_ours() -> BadRequest:
    return BadRequest("the cursor is none that this service gave", "leave the cursor out to begin anew")

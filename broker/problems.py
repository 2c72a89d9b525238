"""Refusals as they are answered: RFC 9457 problem details."""

from collections.abc import Sequence
from http import HTTPStatus

from fastapi.responses import JSONResponse

from broker.errors import status_of
from broker.schemas import Problem, SiteChoice
from broker.schemas.base import RowFault


def problem(
    status: int,
    code: str,
    detail: str,
    remedy: str | None = None,
    rows: Sequence[RowFault] | None = None,
    sites: Sequence[SiteChoice] | None = None,
) -> JSONResponse:
    """Answer with problem details."""
    body = Problem(
        type=f"urn:idf-compute:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=detail,
        remedy=remedy,
        rows=list(rows) if rows else None,
        sites=list(sites) if sites else None,
    )
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    unused = {name for name in ("rows", "sites") if getattr(body, name) is None}
    content = body.model_dump(mode="json", exclude=unused)
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def problem_of(error: Exception, sites: Sequence[SiteChoice] | None = None) -> JSONResponse:
    """Answer with what an error of ours says."""
    code: str = getattr(error, "code", "refused")
    detail: str = getattr(error, "detail", None) or str(error)
    return problem(status_of(error), code, detail, getattr(error, "remedy", None), getattr(error, "rows", None), sites)

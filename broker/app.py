"""The HTTP service: routes under /v1, errors as RFC 9457 problem details, bounds on what comes in."""

from importlib.metadata import version
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.api import (
    aid,
    awards,
    can_award,
    certifications,
    charging,
    contracts,
    environments,
    jobs,
    organisations,
    outputs,
    people,
    programmes,
    projects,
    rates,
    refunds,
    reports,
    site_events,
    sites,
    snapshots,
    tasks,
    underuse,
)
from broker.bootstrap import Services
from broker.document import describe
from broker.errors import KNOWN
from broker.problems import problem, problem_of
from broker.schemas import SLUG_PATTERN, Problem

PARTS = (
    *(jobs, site_events, tasks, outputs, people, organisations, projects, programmes, can_award, awards, underuse, aid),
    *(contracts, rates, charging, refunds, sites, certifications, environments, snapshots, reports),
)
BODY_BYTES_MAX = 8 * 1024 * 1024
TOO_LARGE = f"a request may have at most {BODY_BYTES_MAX} bytes"
log = structlog.get_logger()


def create_app(services: Services) -> FastAPI:
    """Put the routes together over the services."""
    app = FastAPI(
        title="idf-compute",
        version=version("idf-compute"),
        description="The compute broker of the Île-de-France Region.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses={"4XX": {"model": Problem, "content": {"application/problem+json": {}}, "description": "Refused"}},
    )
    app.state.services = services
    app.add_middleware(_BodyBound)
    app.add_api_route("/v1/health", health, methods=["GET"], tags=["service"], openapi_extra={"x-roles": []})
    for part in PARTS:
        app.include_router(part.router, prefix="/v1")
    for known in KNOWN:
        app.add_exception_handler(known, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)
    describe(app)
    return app


class _BodyBound:
    """Refuses bodies above `BODY_BYTES_MAX`, announced or not; snapshots have a bound of their own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/v1/snapshots/"):
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > BODY_BYTES_MAX:
            await _too_large()(scope, receive, send)
            return
        seen = 0

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > BODY_BYTES_MAX:
                raise HTTPException(413, TOO_LARGE)
            return message

        await self._app(scope, bounded, send)


def _too_large() -> Response:
    return problem(413, "too-large", TOO_LARGE, "send large things as a snapshot")


async def health() -> dict[str, str]:
    """Say that the service answers; open to all."""
    return {"status": "ok", "version": version("idf-compute")}


async def _known(_request: Request, error: Exception) -> Response:
    return problem_of(error)


async def _invalid(_request: Request, error: Exception) -> Response:
    faults: list[dict[str, Any]] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    sentences = "; ".join(map(_sentence, faults[:5]))
    return problem(422, "invalid-request", _plain(sentences) or "the request is not valid")


def _sentence(fault: dict[str, Any]) -> str:
    """Word what pydantic found: the field as people know it, then what it should be."""
    field = ".".join(str(part)[:80] for part in fault["loc"] if part not in ("body", "query", "path"))
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "string_pattern_mismatch" and fault["ctx"]["pattern"] == SLUG_PATTERN:
        message = "a name has lower case letters, digits and hyphens, at most 40, and no hyphen at its ends"
    return f"{field}: {message}" if field else message


def _plain(text: str) -> str:
    """Make visible what a field's name brought along and no log or terminal should obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


async def _http(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}.get(status, "bad-request")
    return problem(status, code, str(getattr(error, "detail", error)))


async def _unforeseen(request: Request, error: Exception) -> Response:
    log.error("unforeseen", path=request.url.path, error=repr(error), exc_info=error)
    return problem(500, "unforeseen", "the broker met a fault of its own; an operator finds it in its log")

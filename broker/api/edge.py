"""The edge of a request: who is calling, one read or one write, and answers that can be asked for twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy import Connection, Table, bindparam, select
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from broker.answers import forget_old_answers
from broker.auth import Caller, authenticate
from broker.bootstrap import Services
from broker.errors import AnswerNotKept, BadRequest, IdempotencyKeyMissing, IdempotencyKeyReused
from broker.models import ANSWERS_KEPT_FOR, Idempotency
from quotas.aid_arithmetic import AidRules
from storage.tables import utcnow

KEY_LENGTH_MAX = 200

kept_answers: Table = Idempotency.__table__  # type: ignore[attr-defined]
_by_key = select(kept_answers.c.status).where(
    *(kept_answers.c[name] == bindparam(name) for name in ("person_id", "method", "route", "key"))
)

ANYBODY = ("engineer", "manager", "operator", "auditor")


def allow(*roles: str) -> dict[str, Any]:
    """Declare which roles a route is for; it stands in the OpenAPI document as `x-roles`."""
    return {"x-roles": list(roles)}


class GuardedRoute(APIRoute):
    """A route that knows its caller before it reads the body, and refuses roles that it does not name."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Put the guard before FastAPI's own handler."""
        handler = super().get_route_handler()
        roles: list[str] = (self.openapi_extra or {})["x-roles"]

        async def guarded(request: Request) -> Response:
            request.state.caller = await run_in_threadpool(_admit, request, roles)
            if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
                raise BadRequest("an address holds no NUL character", "leave it out")
            answer: Response = await handler(request)
            return answer

        return guarded


def _admit(request: Request, roles: list[str]) -> Caller:
    services: Services = request.app.state.services
    with services.database.rows() as connection:
        caller = authenticate(connection, request.headers.get("authorization"))
    caller.require(*roles)
    return caller


@dataclass(frozen=True, slots=True)
class Question:
    """A POST as idempotency knows it."""

    person_id: str
    method: str
    route: str
    key: str
    request_sha256: str

    def record(self, status: int, answer: str | None, resource: str) -> dict[str, Any]:
        """Return the row that keeps the first answer."""
        return {
            "person_id": self.person_id,
            "method": self.method,
            "route": self.route,
            "key": self.key,
            "request_sha256": self.request_sha256,
            "status": status,
            "answer": answer,
            "resource": resource,
            "created_at": utcnow(),
        }

    def kept_resource(self, session: Session) -> str:
        """Return what the first answer made."""
        return session.get_one(Idempotency, (self.person_id, self.method, self.route, self.key)).resource


def is_kept(connection: Connection, question: Question) -> bool:
    """Say whether an answer to this POST is kept; cheaply, since nearly always there is none."""
    key = {"person_id": question.person_id, "method": question.method, "route": question.route, "key": question.key}
    return connection.execute(_by_key, key).first() is not None


class Edge:
    """What a route works with."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.services: Services = request.app.state.services
        self.caller: Caller = request.state.caller

    @property
    def aid_rules(self) -> AidRules:
        """The rules of State aid in force here."""
        return self.services.settings.aid.rules()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session that writes nothing."""
        with self.services.database.read() as session:
            yield session

    def question(self, body: BaseModel | None) -> Question:
        """Return what identifies this POST.

        Raises:
            IdempotencyKeyMissing: every POST needs a key, so that none is ever done twice.
        """
        key = self._request.headers.get("idempotency-key", "")
        if not 0 < len(key) <= KEY_LENGTH_MAX:
            raise IdempotencyKeyMissing(
                "a POST needs an Idempotency-Key header of 1 to 200 characters",
                "send a fresh random key for each new request",
            )
        content = body.model_dump_json() if body is not None else ""
        digest = sha256(f"{self._request.url.path}\n{content}".encode()).hexdigest()
        route: str = self._request.scope["route"].path
        return Question(self.caller.person_id, self._request.method, route, key, digest)

    def once(
        self,
        body: BaseModel | None,
        act: Callable[[Session], BaseModel],
        *,
        status: int = 201,
        without: str | None = None,
    ) -> Response:
        """Do something in one write, or give the answer that its first time got.

        The caller's right to do it is checked by the route before, on a repeat too. `without` names the
        resource of an answer that bears a secret and is therefore not kept.
        """
        question = self.question(body)
        try:
            return self._done(question, act, status, without)
        except IntegrityError:  # somebody did the same, or took the name, at this very moment: now it stands
            return self._done(question, act, status, without)

    def _done(
        self, question: Question, act: Callable[[Session], BaseModel], status: int, without: str | None
    ) -> Response:
        with self.services.database.write() as session:
            kept = answered(session, question)
            if kept is not None:
                return kept
            record = Idempotency(**question.record(status, None, ""))
            session.add(record)
            session.flush()  # first of all: who asks the same at this moment waits here, and meets our answer
            answer = act(session)
            content = answer.model_dump_json()
            record.answer = None if without else content
            record.resource = f"{without} {getattr(answer, 'id', '')}" if without else getattr(answer, "id", "")
        return json_response(content, status)


def json_response(content: str, status: int) -> Response:
    """Answer with JSON that is already written."""
    return Response(content, status_code=status, media_type="application/json")


def answered(session: Session, question: Question) -> Response | None:
    """Return the kept answer to a POST, or None when it is new; one older than 24 h is forgotten.

    Raises:
        IdempotencyKeyReused: the key stands for another request.
        AnswerNotKept: the first answer bore a secret.
    """
    kept = session.get(Idempotency, (question.person_id, question.method, question.route, question.key))
    if kept is None:
        return None
    if kept.created_at < utcnow() - ANSWERS_KEPT_FOR:
        forget_old_answers(session, question.person_id)
        return None
    if kept.request_sha256 != question.request_sha256:
        raise IdempotencyKeyReused(
            "this Idempotency-Key stands for another request", "use a fresh key for a new request"
        )
    if kept.answer is None:
        raise AnswerNotKept(
            f"this was done before and made {kept.resource}; its secret was shown once",
            "revoke it and make another",
        )
    return json_response(kept.answer, kept.status)


async def _edge(request: Request) -> Edge:
    return Edge(request)


At = Annotated[Edge, Depends(_edge)]
"""The edge of this request; asynchronous so that it costs no thread."""

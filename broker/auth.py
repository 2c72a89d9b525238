"""Who is calling and what they may do. Tokens are 256 random bits, shown once, kept as SHA-256."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest

from sqlalchemy import Connection, Table, bindparam
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from broker.errors import NotAllowed, NotAuthenticated, NotFound
from broker.memberships import role_in, roles_of
from broker.models import ApiToken, Person, Project
from storage.tables import utcnow

SCHEME = "idf"
SEES_ALL_PROJECTS = frozenset({"manager", "operator", "auditor"})


@dataclass(frozen=True, slots=True)
class Caller:
    """The person behind a request."""

    person_id: str
    name: str
    roles: frozenset[str]

    def require(self, *roles: str) -> None:
        """Refuse a caller who has none of the roles.

        Raises:
            NotAllowed: says which role would do.
        """
        if self.roles.isdisjoint(roles):
            wanted = " or ".join(roles)
            raise NotAllowed(f"this needs the role {wanted}", "ask an operator of the Region for it")

    @property
    def sees_all_projects(self) -> bool:
        """Whether the caller's role reads every project, not only their own."""
        return not self.roles.isdisjoint(SEES_ALL_PROJECTS)


def new_token(person_id: str, label: str, valid_for: timedelta) -> tuple[str, ApiToken]:
    """Return a token's text, which exists this once, and the row that it is known by."""
    id_ = secrets.token_hex(6)
    text = f"{SCHEME}_{id_}_{secrets.token_urlsafe(32)}"
    now = utcnow()
    row = ApiToken(
        id=id_,
        sha256=sha256(text.encode()).hexdigest(),
        person_id=person_id,
        label=label,
        created_at=now,
        expires_at=now + valid_for,
    )
    return text, row


_tokens: Table = ApiToken.__table__  # type: ignore[attr-defined]
_persons: Table = Person.__table__  # type: ignore[attr-defined]
_token_with_person = (
    select_columns(
        _tokens.c.sha256, _tokens.c.expires_at, _tokens.c.revoked_at, _persons.c.id, _persons.c.name, _persons.c.roles
    )
    .join(_persons, _persons.c.id == _tokens.c.person_id)
    .where(_tokens.c.id == bindparam("token_id"))
)


def authenticate(connection: Connection, authorization: str | None) -> Caller:
    """Return the caller whom an Authorization header names.

    Raises:
        NotAuthenticated: without saying whether such a token ever existed.
    """
    scheme, _, text = (authorization or "").partition(" ")
    parts = text.split("_", 2)
    if scheme.lower() != "bearer" or len(parts) != 3 or parts[0] != SCHEME:
        raise NotAuthenticated("no valid token was sent", "log in with `idf-compute login`")
    row = connection.execute(_token_with_person, {"token_id": parts[1]}).first()
    digest = sha256(text.encode()).hexdigest()
    if row is None or not compare_digest(row[0], digest) or not _is_valid(row[1], row[2]):
        raise NotAuthenticated("the token is unknown, revoked or past its end", "log in with `idf-compute login`")
    return Caller(person_id=row[3], name=row[4], roles=frozenset(row[5]))


def _is_valid(expires_at: datetime, revoked_at: datetime | None) -> bool:
    return revoked_at is None and utcnow() < expires_at


def project_roles(session: Session, caller: Caller) -> dict[str, str]:
    """Return what the caller is at this moment in each of their projects, by the project's id."""
    return roles_of(session.connection(), caller.person_id, utcnow())


def project_role(session: Session, caller: Caller, project_id: str) -> str | None:
    """Return what the caller is in a project at this moment: lead, member, viewer, coach or nothing."""
    return role_in(session.connection(), caller.person_id, project_id, utcnow())


def project_ids(session: Session, caller: Caller) -> list[str] | None:
    """Return the ids of the projects whose progress a caller may see; None means all."""
    return None if caller.sees_all_projects else list(project_roles(session, caller))


def readable_project(session: Session, caller: Caller, name: str) -> Project:
    """Return a project whose progress the caller may see.

    Raises:
        NotFound: there is none, or it is somebody else's; the answer is the same.
    """
    project = session.exec(select(Project).where(col(Project.name) == name)).one_or_none()
    if project is None or not may_see(session, caller, project.id):
        raise NotFound(f"no project {name} that you belong to", "`idf-compute project list` shows yours")
    return project


def may_see(session: Session, caller: Caller, project_id: str) -> bool:
    """Say whether a caller may see a project's progress: its jobs' states and times, its balances."""
    return caller.sees_all_projects or project_role(session, caller, project_id) is not None

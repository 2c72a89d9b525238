"""Looking things up by the name that people type."""

from typing import TypeVar

from sqlmodel import Session, select

from broker.errors import NameTaken, NotFound
from broker.models import Organisation, Person, Project, Site
from quotas.models import Programme

LISTED_BY = {
    Organisation: "org list",
    Person: "person list",
    Programme: "programme list",
    Project: "project list",
    Site: "site list",
}
"""The command that lists each kind of thing."""
Named = TypeVar("Named", Organisation, Person, Programme, Project, Site)


def named(session: Session, model: type[Named], name: str) -> Named:
    """Return the row of that name.

    Raises:
        NotFound: says what kind of thing is missing.
    """
    row = session.exec(select(model).where(model.name == name)).one_or_none()
    if row is None:
        kind = model.__name__.lower()
        raise NotFound(f"no {kind} {name}", f"`idf-compute {LISTED_BY[model]}` shows those that there are")
    return row


def check_free(session: Session, model: type[Named], name: str) -> None:
    """Refuse a name that is in use.

    Raises:
        NameTaken: nothing was written.
    """
    if session.exec(select(model.id).where(model.name == name)).first() is not None:
        raise NameTaken(f"a {model.__name__.lower()} {name} exists already", "choose another name")

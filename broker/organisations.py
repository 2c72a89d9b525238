"""What is known of organisations: new facts, and which have no identifier or one that cannot be right."""

from collections.abc import Iterator
from typing import Any

from sqlmodel import Session, col, select

from broker.errors import IdentifierClash
from broker.identifiers import IdentifierWrong, checked_siret
from broker.models import Organisation

NO_IDENTIFIER = "no identifier yet"


def change(session: Session, organisation: Organisation, facts: dict[str, Any], clear: list[str]) -> None:
    """Give an organisation new facts; what is not named stays, what `clear` names becomes unknown.

    Raises:
        IdentifierClash: it would have a SIRET and a foreign identifier.
    """
    emptied = {"foreign_country", "foreign_id"} if "foreign" in clear else set()
    emptied |= set(clear) - {"foreign"}
    organisation.sqlmodel_update({**dict.fromkeys(emptied), **facts})
    if organisation.siret is not None and organisation.foreign_id is not None:
        known, own = ("siret", organisation.siret) if "foreign_id" in facts else ("foreign", organisation.foreign_id)
        raise IdentifierClash(
            f"{organisation.name} is known by {own} already, and has one identifier at a time",
            f"clear that in the same request: `idf-compute org set {organisation.name} --clear {known} …`",
        )
    session.add(organisation)
    session.flush()


def wrong_identifier(organisation: Organisation) -> str | None:
    """Say why an identifier cannot be right, None where its form is good or there is none.

    Only a SIRET that a release before this one took in can be wrong.
    """
    if organisation.siret is None:
        return None
    try:
        checked_siret(organisation.siret)
    except IdentifierWrong as wrong:
        return str(wrong)
    return None


def identifier_problem(organisation: Organisation) -> str | None:
    """Say that an identifier is missing or why it cannot be right, None where its form is good."""
    if organisation.siret is None and organisation.foreign_id is None:
        return NO_IDENTIFIER
    return wrong_identifier(organisation)


def wrong_identifiers(session: Session) -> Iterator[str]:
    """Name each organisation whose identifier cannot be right, with the reason."""
    wanted = select(Organisation).where(col(Organisation.siret).is_not(None)).order_by(col(Organisation.name))
    for organisation in session.exec(wanted):
        wrong = wrong_identifier(organisation)
        if wrong is not None:
            yield f"organisation {organisation.name}: {wrong}"


def without_identifier(session: Session) -> list[str]:
    """Return the names of organisations that nobody has entered an identifier of."""
    none = col(Organisation.siret).is_(None), col(Organisation.foreign_id).is_(None)
    return list(session.exec(select(Organisation.name).where(*none).order_by(col(Organisation.name))))

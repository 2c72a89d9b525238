"""State aid: declarations, what an undertaking had, the register, the letter to a company."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlmodel import Session, col, select

from broker.aid import Registered, Standing, letter_of, registered, standing
from broker.aid_letter import as_page, as_text
from broker.aid_settings import AidSettings
from broker.api.edge import ANYBODY, At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.auth import Caller, project_role
from broker.errors import BadRequest, NotAllowed
from broker.models import Organisation
from broker.names import named
from broker.schemas import (
    AidCeilingOut,
    AidDeclarationIn,
    AidDeclarationOut,
    AidLetterOut,
    AidLineOut,
    AidRulesOut,
    AidStandingOut,
    CountedAidOut,
    Day,
    Id,
    Page,
    Slug,
)
from quotas.aid import DeclaredAid, declare, declared_aids, is_young_enough, newest_before
from quotas.amounts import paris_day, period
from quotas.errors import AwardUnknown
from quotas.models import AidDeclaration, AidLine, Award
from storage.tables import utcnow

router = APIRouter(route_class=GuardedRoute, tags=["State aid"])
READERS = ("manager", "operator", "auditor")
OLDEST, LATEST = date(1970, 1, 1), date(9000, 12, 31)


@router.post(
    "/organisations/{organisation}/aid-declarations",
    status_code=201,
    response_model=AidDeclarationOut,
    openapi_extra=allow("manager"),
)
def create_declaration(organisation: Slug, body: AidDeclarationIn, at: At) -> Response:
    """Enter a company's declaration of all aids it had; it stands whole in place of the one before it."""

    def act(session: Session) -> AidDeclarationOut:
        entered = declare(
            session,
            organisation_id=named(session, Organisation, organisation).id,
            declared_on=body.declared_on,
            document=body.document,
            aids=[DeclaredAid(**aid.model_dump()) for aid in body.aids],
            today=paris_day(utcnow()),
        )
        return _declaration_out(session, entered, organisation)

    return at.once(body, act)


@router.get("/organisations/{organisation}/aid", openapi_extra=allow(*READERS))
def show_aid(
    organisation: Slug,
    at: At,
    on: Annotated[Day | None, Query(description="Day, Europe/Paris; today when left out")] = None,
) -> AidStandingOut:
    """Show the aids of a single undertaking in the fullest window that holds a day, and what is left."""
    settings = at.services.settings.aid
    with at.read() as session:
        row = named(session, Organisation, organisation)
        day = on or paris_day(utcnow())
        return _standing_out(session, standing(session, settings.rules(), row, day), day, settings)


@router.get("/aid/rules", openapi_extra=allow(*READERS))
def show_rules(at: At) -> AidRulesOut:
    """Show the rules of State aid in force here, each with its source."""
    settings = at.services.settings.aid
    return AidRulesOut(
        ceilings=[AidCeilingOut.model_validate(c, from_attributes=True) for c in settings.rules().ceilings],
        declaration_days=settings.declaration_days,
        authority=settings.authority,
        register_columns=settings.register_columns,
        register_source=settings.register_source,
    )


@router.get("/aid/register", openapi_extra=allow(*READERS))
def list_lines(
    at: At,
    from_on: Annotated[Day, Query(alias="from", description="First day on which a line was entered")] = OLDEST,
    to_on: Annotated[Day, Query(alias="to", description="Last day, included")] = LATEST,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[AidLineOut]:
    """List the register's lines by the days on which they were entered, oldest first.

    By the day of entry and not of the grant, so that whoever takes over the lines of each month misses none: a
    reduction bears the day of the grant that it lowers.
    """
    if to_on < from_on:
        raise BadRequest(f"the last day {to_on} lies before the first, {from_on}", "swap them")
    start_at, end_at = period(from_on, to_on)
    settings = at.services.settings.aid
    with at.read() as session:
        wanted = select(AidLine).where(col(AidLine.entered_at) >= start_at, col(AidLine.entered_at) < end_at)
        lines = session.scalars(after(wanted, col(AidLine.id), cursor, limit)).all()
        return page([_line_out(row, settings) for row in registered(session, lines)], limit, "id")


@router.get("/awards/{award_id}/aid-letter", openapi_extra=allow(*ANYBODY))
def show_letter(award_id: Id, at: At) -> AidLetterOut:
    """Give the letter that tells a company of an award's aid; a lead of the project may read it too."""
    with at.read() as session:
        award = _readable_award(session, at.caller, award_id)
        subject, words = letter_of(session, award, at.services.settings.aid)
        return AidLetterOut(
            award=award.id,
            organisation=subject.organisation.name,
            value_micro_euros=subject.value_micro_euros,
            html=as_page(words),
            text=as_text(words),
        )


def _readable_award(session: Session, caller: Caller, award_id: str) -> Award:
    award = session.get(Award, award_id)
    role = project_role(session, caller, award.project_id) if award else None
    if award is None or not (caller.sees_all_projects or role):
        raise AwardUnknown(f"no award {award_id} of yours", "`idf-compute award list` shows them")
    if not caller.sees_all_projects and role != "lead":
        raise NotAllowed("only a lead of the project may read its letters", "ask a lead of the project")
    return award


def _declaration_out(session: Session, row: AidDeclaration, organisation: str) -> AidDeclarationOut:
    return AidDeclarationOut(
        id=row.id,
        organisation=organisation,
        declared_on=row.declared_on,
        document=row.document,
        aids=len(declared_aids(session, row.id)),
        entered_at=row.entered_at,
    )


def _standing_out(session: Session, found: Standing, day: date, settings: AidSettings) -> AidStandingOut:
    names = {organisation.id: organisation.name for organisation in found.undertaking}
    total = found.fullest
    prior = newest_before(session, found.organisation.id, day)
    return AidStandingOut(
        organisation=found.organisation.name,
        undertaking=list(names.values()),
        on=day,
        source=total.ceiling.source if total else None,
        years=total.ceiling.years if total else None,
        from_on=total.from_on if total else None,
        to_on=total.to_on if total else None,
        ceiling_micro_euros=total.ceiling.ceiling_micro_euros if total else None,
        declared_micro_euros=total.declared_micro_euros if total else None,
        counted_micro_euros=total.counted_micro_euros if total else None,
        total_micro_euros=total.total_micro_euros if total else None,
        left_micro_euros=total.left_micro_euros if total else None,
        aids=[
            CountedAidOut(
                id=aid.id,
                granted_on=aid.granted_on,
                organisation=names[aid.organisation_id],
                giver=aid.giver,
                act_reference=aid.reference,
                value_micro_euros=aid.value_micro_euros,
            )
            for aid in (total.aids if total else ())
        ],
        declarations=[_declaration_out(session, d, names[d.organisation_id]) for d in found.declarations],
        may_be_granted=prior is not None and is_young_enough(prior, settings.rules(), day),
    )


def _line_out(row: Registered, settings: AidSettings) -> AidLineOut:
    line, organisation = row.line, row.organisation
    foreign = f"{organisation.foreign_country} {organisation.foreign_id}" if organisation.foreign_id else None
    same = {"id", "kind", "reduces_id", "credits", "micro_euros_per_hour", "public_thousandths", "value_micro_euros",
            "regime", "scheme", "act_reference", "act_on"}  # fmt: skip
    return AidLineOut(
        **line.model_dump(include=same),
        award=line.award_id,
        programme=row.programme.name,
        beneficiary=organisation.full_name or organisation.name,
        siren=organisation.siret[:9] if organisation.siret else None,
        siret=organisation.siret,
        foreign_id=foreign,
        sector_naf=organisation.naf,
        granted_on=paris_day(line.granted_at),
        entered_on=paris_day(line.entered_at),
        authority=settings.authority,
        authority_siren=settings.authority_siren,
        instrument=settings.instrument,
    )

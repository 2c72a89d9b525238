"""Organisations, programmes, projects, members, awards, GPU classes, and what is left."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlmodel import Session, col, select

from broker.api.edge import ANYBODY, At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.auth import project_ids, readable_project
from broker.errors import NameTaken
from broker.models import Membership, Organisation, Person, Project
from broker.names import check_free, named
from broker.schemas import (
    AwardIn,
    AwardOut,
    ClassHours,
    GpuClassIn,
    GpuClassOut,
    MemberIn,
    OrganisationIn,
    OrganisationOut,
    Page,
    ProgrammeIn,
    ProgrammeOut,
    ProjectIn,
    ProjectOut,
    QuotaOut,
    Slug,
)
from quotas.amounts import day_start, period
from quotas.balances import balances_of, seconds_by_class
from quotas.models import Award, GpuClass, Programme
from quotas.programmes import grant_award, open_programme, set_weight, unawarded_credits, weights
from storage.tables import new_id, utcnow

router = APIRouter(route_class=GuardedRoute, tags=["awarding"])
READERS = ("manager", "operator", "auditor")


@router.post("/organisations", status_code=201, response_model=OrganisationOut, openapi_extra=allow("manager"))
def create_organisation(body: OrganisationIn, at: At) -> Response:
    """Enter an organisation."""

    def act(session: Session) -> OrganisationOut:
        check_free(session, Organisation, body.name)
        organisation = Organisation(id=new_id("org"), created_at=utcnow(), **body.model_dump())
        session.add(organisation)
        return OrganisationOut.model_validate(organisation, from_attributes=True)

    return at.once(body, act)


@router.get("/organisations", openapi_extra=allow(*READERS))
def list_organisations(at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[OrganisationOut]:
    """List organisations by name."""
    with at.read() as session:
        rows = session.scalars(after(select(Organisation), col(Organisation.name), cursor, limit)).all()
        return page([OrganisationOut.model_validate(row, from_attributes=True) for row in rows], limit, "name")


@router.post("/programmes", status_code=201, response_model=ProgrammeOut, openapi_extra=allow("manager"))
def create_programme(body: ProgrammeIn, at: At) -> Response:
    """Open a programme and fund it."""

    def act(session: Session) -> ProgrammeOut:
        check_free(session, Programme, body.name)
        return _programme_out(session, open_programme(session, **body.model_dump()))

    return at.once(body, act)


@router.get("/programmes", openapi_extra=allow(*READERS))
def list_programmes(at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[ProgrammeOut]:
    """List programmes by name, with what is left to award."""
    with at.read() as session:
        rows = session.scalars(after(select(Programme), col(Programme.name), cursor, limit)).all()
        return page([_programme_out(session, row) for row in rows], limit, "name")


def _programme_out(session: Session, programme: Programme) -> ProgrammeOut:
    return ProgrammeOut(
        id=programme.id,
        name=programme.name,
        kind=programme.kind,
        default_time_limit_s=programme.default_time_limit_s,
        unawarded_credits=unawarded_credits(session, programme.id),
        created_at=programme.created_at,
    )


@router.post("/projects", status_code=201, response_model=ProjectOut, openapi_extra=allow("manager"))
def create_project(body: ProjectIn, at: At) -> Response:
    """Open a project of an organisation inside a programme."""

    def act(session: Session) -> ProjectOut:
        check_free(session, Project, body.name)
        project = Project(
            id=new_id("prj"),
            name=body.name,
            organisation_id=named(session, Organisation, body.organisation).id,
            programme_id=named(session, Programme, body.programme).id,
            confidentiality=body.confidentiality,
            nature=body.nature,
            created_at=utcnow(),
        )
        session.add(project)
        session.flush()
        return _project_out(session, project)

    return at.once(body, act)


@router.get("/projects", openapi_extra=allow(*ANYBODY))
def list_projects(at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[ProjectOut]:
    """List projects by name: your own, or all for a role that sees all."""
    with at.read() as session:
        wanted: Any = select(Project)
        own = project_ids(session, at.caller)
        if own is not None:
            wanted = wanted.where(col(Project.id).in_(own))
        rows = session.scalars(after(wanted, col(Project.name), cursor, limit)).all()
        return page([_project_out(session, row) for row in rows], limit, "name")


@router.post("/projects/{name}/members", status_code=201, response_model=ProjectOut, openapi_extra=allow("manager"))
def add_member(name: Slug, body: MemberIn, at: At) -> Response:
    """Let a person join a project; one who is a member already stays one."""

    def act(session: Session) -> ProjectOut:
        project = named(session, Project, name)
        person = named(session, Person, body.person)
        if session.get(Membership, (person.id, project.id)) is None:
            session.add(Membership(person_id=person.id, project_id=project.id, since=utcnow()))
            session.flush()
        return _project_out(session, project)

    return at.once(body, act)


def _project_out(session: Session, project: Project) -> ProjectOut:
    members = select(Person.name).join(Membership).where(col(Membership.project_id) == project.id)
    return ProjectOut(
        id=project.id,
        name=project.name,
        organisation=session.get_one(Organisation, project.organisation_id).name,
        programme=session.get_one(Programme, project.programme_id).name,
        confidentiality=project.confidentiality,
        nature=project.nature,
        members=list(session.exec(members.order_by(col(Person.name)))),
        created_at=project.created_at,
    )


@router.post("/awards", status_code=201, response_model=AwardOut, openapi_extra=allow("manager"))
def create_award(body: AwardIn, at: At) -> Response:
    """Grant an award to a project, out of its programme's budget."""

    def act(session: Session) -> AwardOut:
        project = named(session, Project, body.project)
        start_at, end_at = period(body.start_on, body.end_on)
        award = grant_award(
            session,
            project_id=project.id,
            programme=session.get_one(Programme, project.programme_id),
            amount_credits=body.amount_credits,
            start_at=start_at,
            end_at=end_at,
        )
        return _awards_out(session, [award])[0]

    return at.once(body, act)


@router.get("/awards", openapi_extra=allow(*READERS))
def list_awards(at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[AwardOut]:
    """List awards, oldest first."""
    with at.read() as session:
        rows = session.scalars(after(select(Award), col(Award.id), cursor, limit)).all()
        return page(_awards_out(session, rows), limit, "id")


@router.get("/quota", openapi_extra=allow(*ANYBODY))
def quota(at: At, project: Annotated[Slug | None, Query()] = None) -> QuotaOut:
    """Tell what is left of the awards that you may see, those that end first before the others."""
    with at.read() as session:
        wanted = select(Award).order_by(col(Award.end_at), col(Award.id)).limit(1000)
        own = project_ids(session, at.caller)
        if project is not None:
            own = [readable_project(session, at.caller, project).id]
        if own is not None:
            wanted = wanted.where(col(Award.project_id).in_(own))
        return QuotaOut(awards=_awards_out(session, session.exec(wanted).all()))


def _awards_out(session: Session, awards: Any) -> list[AwardOut]:
    now = utcnow()
    classes = weights(session.connection(), now)
    balances = balances_of(session, [award.id for award in awards])
    return [_award_out(session, award, balances[award.id], classes, now) for award in awards]


def _award_out(session: Session, award: Award, balances: Any, classes: dict[str, int], now: datetime) -> AwardOut:
    return AwardOut(
        id=award.id,
        project=session.get_one(Project, award.project_id).name,
        programme=session.get_one(Programme, award.programme_id).name,
        start_at=award.start_at,
        end_at=award.end_at,
        active=award.start_at <= now < award.end_at,
        awarded_credits=award.awarded_credits,
        available_credits=balances.available,
        held_credits=balances.held,
        consumed_credits=balances.consumed,
        overrun_credits=balances.overrun,
        classes=[
            ClassHours(gpu_class=name, weight_thousandths=classes[name], available_s=seconds)
            for name, seconds in seconds_by_class(balances.available, classes).items()
        ],
    )


@router.post("/gpu-classes", status_code=201, response_model=GpuClassOut, openapi_extra=allow("manager"))
def create_gpu_class(body: GpuClassIn, at: At) -> Response:
    """Give a GPU class a weight from a day on."""

    def act(session: Session) -> GpuClassOut:
        valid_from = day_start(body.valid_from)
        if session.get(GpuClass, (body.name, valid_from)) is not None:
            raise NameTaken(f"GPU class {body.name} has a weight from that day already", "choose another day")
        return GpuClassOut.model_validate(
            set_weight(session, body.name, body.weight_thousandths, valid_from), from_attributes=True
        )

    return at.once(body, act)


@router.get("/gpu-classes", openapi_extra=allow(*ANYBODY))
def list_gpu_classes(at: At) -> Page[GpuClassOut]:
    """List the GPU classes as they are weighted today."""
    with at.read() as session:
        dated = session.exec(select(GpuClass).where(GpuClass.valid_from <= utcnow()).order_by(col(GpuClass.valid_from)))
        newest = {gpu_class.name: gpu_class for gpu_class in dated}
        items = [GpuClassOut.model_validate(newest[name], from_attributes=True) for name in sorted(newest)]
        return Page(items=items)

"""Organisations, projects and their members."""

from typing import Any

from fastapi import APIRouter, Response
from sqlmodel import Session, col, select

from broker.api.edge import ANYBODY, At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.auth import project_ids
from broker.models import Membership, Organisation, Person, Project
from broker.names import check_free, named
from broker.schemas import (
    MemberIn,
    OrganisationIn,
    OrganisationOut,
    Page,
    ProjectIn,
    ProjectOut,
    Slug,
)
from quotas.models import Programme
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

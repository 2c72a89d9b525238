"""Projects and their members."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlmodel import Session, col, select

from broker.api.edge import ANYBODY, At, Edge, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.auth import project_ids, project_role, readable_project
from broker.errors import NotAllowed
from broker.memberships import join, leave, members_of, valid_at
from broker.models import Membership, Organisation, Person, Project
from broker.names import check_free, named
from broker.schemas import LeaveIn, MemberIn, MemberOut, Page, ProjectIn, ProjectOut, Slug
from quotas.models import Programme
from storage.tables import new_id, utcnow

router = APIRouter(route_class=GuardedRoute, tags=["awarding"])


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
        return _project_out(session, project, [])

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
        members = members_of(session, [row.id for row in rows], utcnow())
        return page([_project_out(session, row, members[row.id]) for row in rows], limit, "name")


@router.get("/projects/{name}/members", openapi_extra=allow(*ANYBODY))
def list_members(
    name: Slug,
    at: At,
    every: Annotated[bool, Query(alias="all", description="Those who left, and those to come, too")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[MemberOut]:
    """List who belongs to a project at this moment, and as what."""
    with at.read() as session:
        project = readable_project(session, at.caller, name)
        wanted: Any = select(Membership, Person.name).join(Person).where(col(Membership.project_id) == project.id)
        if not every:
            wanted = wanted.where(valid_at(utcnow()))
        rows = session.execute(after(wanted, col(Membership.id), cursor, limit)).all()
        return page([_member_out(row, project.name, person) for row, person in rows], limit, "id")


@router.post(
    "/projects/{name}/members",
    status_code=201,
    response_model=MemberOut,
    openapi_extra=allow("manager", "engineer"),
)
def add_member(name: Slug, body: MemberIn, at: At) -> Response:
    """Let a person join a project: managers in any role, a project's lead in all but their own."""

    def allowed(session: Session) -> Project:
        return _led_project(session, at, name, "enter", body.role)

    def act(session: Session) -> MemberOut:
        project, person = allowed(session), named(session, Person, body.person)
        row = join(session, project, person, body.role, (body.from_on, body.to_on))
        return _member_out(row, project.name, person.name)

    with at.read() as session:
        allowed(session)
    return at.once(body, act)


@router.post("/projects/{name}/members/leave", response_model=MemberOut, openapi_extra=allow("manager", "engineer"))
def remove_member(name: Slug, body: LeaveIn, at: At) -> Response:
    """End a person's part in a project: managers anybody's, a project's lead anybody's but a lead's."""

    def allowed(session: Session) -> Project:
        return _led_project(session, at, name, "end", None)

    def act(session: Session) -> MemberOut:
        project, person = allowed(session), named(session, Person, body.person)
        row = leave(session, project, person, body.on)
        _check_role(at, "end", row.role)
        return _member_out(row, project.name, person.name)

    with at.read() as session:
        allowed(session)
    return at.once(body, act, status=200)


def _led_project(session: Session, at: Edge, name: str, what: str, role: str | None) -> Project:
    """Return a project whose members the caller may change.

    Raises:
        NotFound: there is none, or none that the caller may see; the answer is the same.
        NotAllowed: the caller neither leads it nor is a manager, or a lead is to be changed by one who is no manager.
    """
    if "manager" in at.caller.roles:
        return named(session, Project, name)
    project = readable_project(session, at.caller, name)
    if project_role(session, at.caller, project.id) != "lead":
        raise NotAllowed(
            f"members of {name} are entered by its lead or by a manager, and you are neither", "ask one of them"
        )
    if role is not None:
        _check_role(at, what, role)
    return project


def _check_role(at: Edge, what: str, role: str) -> None:
    if role == "lead" and "manager" not in at.caller.roles:
        raise NotAllowed(f"only a manager may {what} a lead's membership", "ask a manager")


def _project_out(session: Session, project: Project, members: list[str]) -> ProjectOut:
    return ProjectOut(
        id=project.id,
        name=project.name,
        organisation=session.get_one(Organisation, project.organisation_id).name,
        programme=session.get_one(Programme, project.programme_id).name,
        confidentiality=project.confidentiality,
        nature=project.nature,
        members=members,
        created_at=project.created_at,
    )


def _member_out(row: Membership, project: str, person: str) -> MemberOut:
    now = utcnow()
    holds = row.start_at <= now and (row.end_at is None or now < row.end_at)
    return MemberOut(project=project, person=person, holds=holds, **row.model_dump(exclude={"person_id", "project_id"}))

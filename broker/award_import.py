"""A cohort's awards from one file: all with what they need, in one transaction, or none and every reason why."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from broker.auth import Caller
from broker.award_file import Line, read
from broker.awarding import actor, granted
from broker.errors import ImportRefused
from broker.models import Membership, Organisation, Person, Project
from broker.names import named
from broker.schemas import ImportIn, ImportOut, RowFault
from quotas.aid import declare
from quotas.aid_arithmetic import AidRules
from quotas.amounts import day_start, hours_text, paris_day, period
from quotas.award_life import GRANTED, UNDECIDED
from quotas.awards import Subject, Terms, grant_many, needs_two, projects_begun_in
from quotas.errors import (
    AidAboveCeiling,
    AidDeclarationRefused,
    AidIncomplete,
    AidRefused,
    AidUndeclared,
    NoBudget,
)
from quotas.models import Award, Programme
from quotas.policy import AwardAsked, ProgrammePolicy, all_refusals
from quotas.posting import lock_books
from quotas.programmes import budget_for, days_text, policy_of, unawarded_credits
from storage.tables import new_id

_AID_COLUMNS: dict[type[AidRefused], str] = {
    AidAboveCeiling: "hours",
    AidIncomplete: "act_reference",
    AidUndeclared: "declared_on",
    AidDeclarationRefused: "declared_on",
}
"""Where a row puts right what State aid refuses."""
CHUNK = 500
"""Names asked for in one statement: a bound on its parameters."""


@dataclass(slots=True)
class _Known:
    """What stands in the database, and what the rows before have added, by the names that people type."""

    programme: Programme
    policy: ProgrammePolicy
    organisations: dict[str, Organisation]
    companies: dict[str, str]
    """SIRET → the name of the company that has it."""
    projects: dict[str, Project]
    persons: dict[str, Person]
    roles: dict[tuple[str, str], str]
    """(person's id, project's id) → role, where the membership has no end."""
    awards: dict[str, list[Award]]
    """By the project's id: granted or under review."""
    begun: dict[int, set[str]] = field(default_factory=dict)
    """Year → projects of the cohort, by id or, when new, by name."""
    seen: dict[tuple[str, str], Line] = field(default_factory=dict)
    """(column, name) → the first row that has it."""


def import_awards(session: Session, caller: Caller, body: ImportIn, at: datetime, rules: AidRules) -> ImportOut:
    """Grant the awards of a file; with `dry_run` only say what would be made.

    Raises:
        NotFound, BadRequest: no such programme, or the file cannot be read as a whole.
        ImportRefused: names each reason of each row that is refused; nothing was written.
    """
    programme = named(session, Programme, body.programme)
    lines, faults = read(body.csv)
    lock_books(session)
    known = _known(session, programme, lines)
    for line in lines:
        faults += _faults(session, known, line)
    left, short = _budgets(session, programme, lines)
    _refuse(lines, faults, short)
    made = _Made(session, known, at)
    for line in lines:
        made.add(line)
    with session.begin_nested() as tried:
        awards, faults = made.write(caller, rules)
        if faults or body.dry_run:
            tried.rollback()
            awards = []
    _refuse(lines, faults, [])
    return ImportOut(
        id=programme.id,
        programme=programme.name,
        dry_run=body.dry_run,
        rows=len(lines),
        organisations=sorted(made.organisations),
        projects=sorted(made.projects),
        persons=sorted(made.persons),
        awards=[award.id for award in awards],
        amount_credits=sum(line.credits for line in lines),
        left_credits=left,
    )


def _refuse(lines: Sequence[Line], faults: list[RowFault], short: list[RowFault]) -> None:
    """Refuse the file if anything is wrong: with rows of it, or with all of them together (`short`)."""
    rows = {fault.line for fault in faults}
    if faults or short:
        count = len(lines) + len(rows - {line.number for line in lines})
        raise ImportRefused(
            f"{len(rows)} of {count} rows are refused, so none is entered" if rows else "the rows together are refused",
            "put right what each reason names, then import the file again",
            sorted([*faults, *short], key=lambda fault: fault.line),
        )


def _known(session: Session, programme: Programme, lines: Sequence[Line]) -> _Known:
    organisations = _by_name(session, Organisation, (line.organisation for line in lines))
    projects = _by_name(session, Project, (line.project for line in lines))
    persons = _by_name(session, Person, (line.lead for line in lines))
    sirets = {line.facts["siret"] for line in lines if "siret" in line.facts}
    companies = _in_chunks(session, Organisation, Organisation.siret, sirets)
    known = _Known(
        programme=programme,
        policy=policy_of(programme),
        organisations=organisations,
        companies={str(o.siret): o.name for o in companies if o.kind == "company"},
        projects=projects,
        persons=persons,
        roles={},
        awards=defaultdict(list),
    )
    for row in _in_chunks(session, Membership, Membership.project_id, {p.id for p in projects.values()}):
        if row.end_at is None:
            known.roles[row.person_id, row.project_id] = row.role
    for award in _in_chunks(session, Award, Award.project_id, {p.id for p in projects.values()}):
        if award.state in UNDECIDED or award.state in GRANTED:
            known.awards[award.project_id].append(award)
    for year in {line.start_on.year for line in lines}:
        known.begun[year] = projects_begun_in(session, programme.id, year)
    return known


def _by_name(session: Session, model: Any, names: Iterable[str]) -> dict[str, Any]:
    return {row.name: row for row in _in_chunks(session, model, model.name, set(names))}


def _in_chunks(session: Session, model: Any, column: Any, values: set[Any]) -> Iterator[Any]:
    wanted = sorted(values)
    for start in range(0, len(wanted), CHUNK):
        yield from session.exec(select(model).where(col(column).in_(wanted[start : start + CHUNK])))


def _faults(session: Session, known: _Known, line: Line) -> list[RowFault]:
    """Return every reason why a row is refused; what it brings counts for the rows after it."""
    faults = [
        *_of_organisation(known, line),
        *_of_project(known, line),
        *_of_lead(known, line),
        *_of_award(known, line),
    ]
    for column, name in (("organisation", line.organisation), ("project", line.project), ("lead", line.lead)):
        known.seen.setdefault((column, name), line)
    if "siret" in line.facts and line.facts.get("kind", "company") == "company":
        known.companies.setdefault(line.facts["siret"], line.organisation)
    if not faults:
        project = known.projects.get(line.project)
        known.begun[line.start_on.year].add(project.id if project else line.project)
    return faults


def _fault(line: Line, column: str | None, rule: str, remedy: str | None) -> RowFault:
    return RowFault(line=line.number, column=column, rule=rule, remedy=remedy)


def _of_organisation(known: _Known, line: Line) -> Iterator[RowFault]:
    name, stands = line.organisation, known.organisations.get(line.organisation)
    before = known.seen.get(("organisation", name))
    for column, value in line.facts.items():
        if stands is not None and getattr(stands, column) != value:
            yield _fault(line, column, f"organisation {name} stands with {getattr(stands, column) or 'nothing'} there",
                         f"leave it empty, or change it: idf-compute org set {name}")  # fmt: skip
        elif stands is None and before is not None and before.facts.get(column, value) != value:
            yield _fault(line, column, f"line {before.number} says {before.facts[column]} of organisation {name}",
                         "say the same in both")  # fmt: skip
    owner = known.companies.get(line.facts.get("siret", ""))
    if owner is not None and owner != name and line.facts.get("kind", "company") == "company":
        yield _fault(line, "siret", f"{line.facts['siret']} is the SIRET of organisation {owner}",
                     f"write {owner}, or the SIRET of {name}")  # fmt: skip


def _of_project(known: _Known, line: Line) -> Iterator[RowFault]:
    before, stands = known.seen.get(("project", line.project)), known.projects.get(line.project)
    if before is not None:
        yield _fault(line, "project", f"project {line.project} stands in line {before.number} already",
                     "one row for each project")  # fmt: skip
    if stands is None:
        return
    owner = known.organisations.get(line.organisation)
    if owner is None or stands.organisation_id != owner.id:
        yield _fault(line, "project", f"project {line.project} belongs to another organisation", "choose another name")
    if stands.programme_id != known.programme.id:
        yield _fault(line, "project", f"project {line.project} belongs to another programme", "choose another name")
    for column in ("confidentiality", "nature"):
        given = getattr(line, column)
        if given is not None and given != getattr(stands, column):
            yield _fault(
                line, column, f"project {line.project} stands with {getattr(stands, column)}", "leave it empty"
            )


def _of_lead(known: _Known, line: Line) -> Iterator[RowFault]:
    stands, before = known.persons.get(line.lead), known.seen.get(("lead", line.lead))
    for column, kept in (("lead_full_name", "full_name"), ("lead_email", "email")):
        given = getattr(line, column)
        if stands is not None and given is not None and given != getattr(stands, kept):
            yield _fault(line, column, f"person {line.lead} stands with another one",
                         "leave it empty, or choose another name for another person")  # fmt: skip
        elif stands is None and before is not None and given is not None and given != getattr(before, column):
            yield _fault(line, column, f"line {before.number} says something else of person {line.lead}",
                         "say the same in both, or choose another name for another person")  # fmt: skip
    if stands is None:
        return
    if "engineer" not in stands.roles:
        yield _fault(line, "lead", f"person {line.lead} has not the role engineer, and could submit nothing",
                     "name somebody else, or let an operator give the role")  # fmt: skip
    project = known.projects.get(line.project)
    role = known.roles.get((stands.id, project.id)) if project is not None else None
    if role not in (None, "lead"):
        yield _fault(line, "lead", f"person {line.lead} is {role} of project {line.project}",
                     f"end that first: idf-compute project leave {line.project} {line.lead}")  # fmt: skip


def _of_award(known: _Known, line: Line) -> Iterator[RowFault]:
    project = known.projects.get(line.project)
    confidentiality, nature = _data_class(project, line)
    asked = AwardAsked(line.credits, line.start_on, line.end_on, confidentiality, nature)
    others = known.begun[line.start_on.year] - {project.id if project else line.project}
    for refusal in all_refusals(known.policy, asked, len(others)):
        yield _fault(line, None, refusal.detail, refusal.remedy)
    if needs_two(known.policy, line.credits):
        above = hours_text(known.policy.four_eyes_above_credits or 0)
        yield _fault(line, "hours", f"above {above} two managers must approve, and a file is entered by one",
                     "leave the row out and use: idf-compute award request")  # fmt: skip
    start_at, end_at = period(line.start_on, line.end_on)
    for award in known.awards[project.id] if project else ():
        if award.start_at < end_at and start_at < award.end_at:
            days = days_text(award.start_at, award.end_at)
            yield _fault(line, "from", f"project {line.project} has award {award.id} {days} already",
                         "choose other days, or ask for a supplement")  # fmt: skip


def _data_class(project: Project | None, line: Line) -> tuple[str, str]:
    if project is not None:
        return project.confidentiality, project.nature
    return line.confidentiality or "internal", line.nature or "none"


def _budgets(session: Session, programme: Programme, lines: Sequence[Line]) -> tuple[int, list[RowFault]]:
    """Return what the budgets would have left, and reasons why they cannot pay all rows."""
    needed: dict[str, int] = defaultdict(int)
    faults = []
    for line in lines:
        try:
            needed[budget_for(session, programme.id, day_start(line.start_on)).id] += line.credits
        except NoBudget as refusal:
            faults.append(_fault(line, "from", refusal.detail, refusal.remedy))
    left = 0
    for budget_id, amount in needed.items():
        unawarded = unawarded_credits(session, budget_id)
        left += unawarded - amount
        if amount > unawarded:
            rule = f"all rows together need {hours_text(amount)}, and the budget has {hours_text(unawarded)} left"
            remedy = f"add to the budget: idf-compute programme fund {programme.name}"
            faults.append(RowFault(line=1, column="hours", rule=rule, remedy=remedy))
    return left, faults


class _Made:
    """The rows that an import adds, by name: first gathered, then written together."""

    def __init__(self, session: Session, known: _Known, at: datetime) -> None:
        self._session = session
        self._known = known
        self._at = at
        self.organisations: dict[str, Organisation] = {}
        self.projects: dict[str, Project] = {}
        self.persons: dict[str, Person] = {}
        self._memberships: list[Membership] = []
        self._awards: list[tuple[Subject, Terms]] = []
        self._lines: list[Line] = []

    def add(self, line: Line) -> None:
        """Gather what a row needs and does not find."""
        organisation, person = self._organisation(line), self._person(line)
        project = self._known.projects.get(line.project) or self._project(line, organisation)
        if (person.id, project.id) not in self._known.roles:
            self._memberships.append(
                Membership(id=new_id("mbr"), person_id=person.id, project_id=project.id, role="lead", start_at=self._at)
            )
        subject = Subject(project.id, self._known.programme, project.confidentiality, project.nature)
        self._awards.append((subject, Terms(line.credits, line.start_on, line.end_on)))
        self._lines.append(line)

    def write(self, caller: Caller, rules: AidRules) -> tuple[list[Award], list[RowFault]]:
        """Write all of it, and return what State aid refuses; the transaction is the caller's, to undo it then."""
        for some in (self.organisations, self.persons, self.projects):
            self._session.add_all(some.values())
            self._session.flush()
        self._session.add_all(self._memberships)
        awards = grant_many(self._session, self._awards, actor(caller), self._at)
        faults = []
        for award, line in zip(awards, self._lines, strict=True):
            award.act_reference, award.act_on = line.act_reference, line.act_on
            try:
                self._declare(award, line)
                granted(self._session, award, award.proposed_credits, "award", self._at, rules)
            except AidRefused as refusal:
                faults.append(_fault(line, _AID_COLUMNS.get(type(refusal)), refusal.detail, refusal.remedy))
        return awards, faults

    def _declare(self, award: Award, line: Line) -> None:
        """Enter that a row's organisation declares to have had no State aid."""
        if line.declared_on is not None and line.declaration is not None:
            declare(
                self._session,
                organisation_id=self._session.get_one(Project, award.project_id).organisation_id,
                declared_on=line.declared_on,
                document=line.declaration,
                aids=(),
                today=paris_day(self._at),
            )

    def _organisation(self, line: Line) -> Organisation:
        stands = self._known.organisations.get(line.organisation) or self.organisations.get(line.organisation)
        if stands is None:
            stands = Organisation(
                id=new_id("org"), name=line.organisation, created_at=self._at, **{"kind": "company", **line.facts}
            )
            self.organisations[line.organisation] = stands
            return stands
        if line.organisation in self.organisations:
            for column, value in line.facts.items():
                setattr(stands, column, value)
        return stands

    def _person(self, line: Line) -> Person:
        stands = self._known.persons.get(line.lead) or self.persons.get(line.lead)
        if stands is None:
            stands = self.persons[line.lead] = Person(
                id=new_id("psn"),
                name=line.lead,
                full_name=line.lead_full_name,
                email=line.lead_email,
                roles=["engineer"],
                created_at=self._at,
            )
        return stands

    def _project(self, line: Line, organisation: Organisation) -> Project:
        confidentiality, nature = _data_class(None, line)
        made = self.projects[line.project] = Project(
            id=new_id("prj"),
            name=line.project,
            organisation_id=organisation.id,
            programme_id=self._known.programme.id,
            confidentiality=confidentiality,
            nature=nature,
            created_at=self._at,
        )
        return made

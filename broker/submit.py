"""From what an engineer asks to a job with its hold, in one transaction; or the rule that refuses it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Table, bindparam, select

from broker.auth import Caller
from broker.bootstrap import Services
from broker.errors import NotAllowed, NotFound, PlacementRefused
from broker.lifecycle import JobState
from broker.memberships import SUBMITTERS, memberships, valid_at
from broker.models import Job, JobEvent, JobPayload, Project, ProjectAccount, Site
from broker.moves import event_row
from broker.paying import Need, Payer, choose, too_small
from broker.placement import Placement, SiteFacts, place
from broker.schemas import JobIn, JobOut, PlanOut, SiteIn
from quotas.amounts import hold_credits, hours_text
from quotas.errors import AwardTooSmall, QuotaError
from quotas.holds import open_hold
from quotas.ledger import account_id
from quotas.models import Account, Award, Programme
from quotas.programmes import weights
from storage.tables import new_id, utcnow

_jobs: Table = Job.__table__  # type: ignore[attr-defined]
_payloads: Table = JobPayload.__table__  # type: ignore[attr-defined]
_events: Table = JobEvent.__table__  # type: ignore[attr-defined]
_accounts: Table = ProjectAccount.__table__  # type: ignore[attr-defined]
_projects: Table = Project.__table__  # type: ignore[attr-defined]
_site_table: Table = Site.__table__  # type: ignore[attr-defined]
_programmes: Table = Programme.__table__  # type: ignore[attr-defined]
_awards: Table = Award.__table__  # type: ignore[attr-defined]
_ledger_accounts: Table = Account.__table__  # type: ignore[attr-defined]

TableRow = tuple[Table, Mapping[str, Any]]
PLACEMENT_TRIES_MAX = 4


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    """A project as a submission sees it."""

    id: str
    name: str
    programme_id: str
    confidentiality: str
    default_time_limit_s: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided about a submission before its hold."""

    wanted: JobIn
    project: ProjectFacts
    placement: Placement
    payer: Payer
    weight_thousandths: int
    time_limit_s: int
    held_credits: int
    notices: tuple[str, ...]


def plan(connection: Connection, caller: Caller, wanted: JobIn, now: datetime) -> Plan:
    """Decide where a job would run and which award would pay, without changing anything.

    Raises:
        NotFound, NotAllowed, PlacementRefused, AwardUnknown, AwardNotActive, AwardTooSmall: the rule that refuses it.
    """
    project = _project(connection, caller, wanted.project, now)
    time_limit_s, notices = _time_limit(wanted, project)
    timed = wanted.model_copy(update={"time_limit_s": time_limit_s})
    known = weights(connection, now)
    placement = place(timed, project.confidentiality, _sites(connection, project.id, wanted.site), known)
    weight = known[placement.gpu_class]
    held = hold_credits(wanted.gpus, time_limit_s, placement.site.settings.kill_grace_s, weight)
    payer = choose(_payers(connection, project), wanted.award, Need(project.name, held, time_limit_s, now))
    return Plan(wanted, project, placement, payer, weight, time_limit_s, held, notices)


_mine = (
    select(
        _projects.c.id,
        _projects.c.name,
        _projects.c.programme_id,
        _projects.c.confidentiality,
        _programmes.c.policy["default_time_limit_s"].as_integer().label("default_time_limit_s"),
    )
    .join(_programmes, _programmes.c.id == _projects.c.programme_id)
    .join(memberships, memberships.c.project_id == _projects.c.id)
    .where(memberships.c.person_id == bindparam("person_id"), valid_at(bindparam("now")))
    .limit(2)
)
_own_projects = _mine.where(memberships.c.role.in_(SUBMITTERS))
_own_project = _own_projects.where(_projects.c.name == bindparam("name"))


def _project(connection: Connection, caller: Caller, name: str | None, now: datetime) -> ProjectFacts:
    wanted = _own_projects if name is None else _own_project
    rows = connection.execute(wanted, {"person_id": caller.person_id, "name": name, "now": now}).all()
    if not rows:
        raise _no_project(connection, caller, name, now)
    if len(rows) > 1:
        raise PlacementRefused("you belong to several projects", "--project with one of `idf-compute project list`")
    return ProjectFacts(*rows[0])


def _no_project(connection: Connection, caller: Caller, name: str | None, now: datetime) -> NotAllowed | NotFound:
    """Say why there is nothing to submit to; to a stranger as if there were no such project."""
    wanted = _mine.add_columns(memberships.c.role)
    if name is not None:
        wanted = wanted.where(_projects.c.name == name)
    seen = connection.execute(wanted, {"person_id": caller.person_id, "now": now}).first()
    if seen is not None:
        return NotAllowed(
            f"you are {seen.role} of the project {seen.name}, and only leads and members submit jobs",
            "ask its lead or a manager to make you a member",
        )
    what = f"no project {name} that you belong to" if name else "you belong to no project yet"
    return NotFound(what, "`idf-compute project list` shows yours")


def _time_limit(wanted: JobIn, project: ProjectFacts) -> tuple[int, tuple[str, ...]]:
    """Return the limit in whole minutes, as schedulers count it, and what the engineer is told of it."""
    if wanted.time_limit_s is not None:
        return -(-wanted.time_limit_s // 60) * 60, ()
    limit_s = -(-project.default_time_limit_s // 60) * 60
    return limit_s, (f"no time limit was given: the programme's default of {limit_s // 60} min applies (--time)",)


_sites_with_accounts = select(
    _site_table.c.id,
    _site_table.c.name,
    _site_table.c.settings,
    _site_table.c.problems,
    _accounts.c.account,
    _accounts.c.project_id,
).join(_accounts, _accounts.c.site_id == _site_table.c.id, isouter=True)


def _sites(connection: Connection, project_id: str, name: str | None) -> list[SiteFacts]:
    rows: dict[str, list[Any]] = {}
    for row in connection.execute(_sites_with_accounts):
        if name is None or row.name == name:
            rows.setdefault(row.id, []).append(row)
    return [_site_facts(SiteIn.model_validate(some[0].settings), project_id, some) for some in rows.values()]


def _site_facts(settings: SiteIn, project_id: str, rows: Sequence[Any]) -> SiteFacts:
    """Make the facts of one site from its rows, one for each account that is taken."""
    id_, problems = rows[0].id, rows[0].problems
    if settings.isolation == "shared":
        return SiteFacts(id_, settings, problems, settings.accounts[0], account_is_new=False)
    taken = {row.account: row.project_id for row in rows if row.account is not None}
    own = next((account for account, owner_id in taken.items() if owner_id == project_id), None)
    if own is not None:
        return SiteFacts(id_, settings, problems, own, account_is_new=False)
    free = next((account for account in settings.accounts if account not in taken), None)
    return SiteFacts(id_, settings, problems, free, account_is_new=free is not None)


_awards_with_available = (
    select(_awards.c.id, _awards.c.start_at, _awards.c.end_at, _ledger_accounts.c.balance)
    .join(_ledger_accounts, _ledger_accounts.c.id == "available:" + _awards.c.id)
    .where(_awards.c.project_id == bindparam("project_id"))
)


def _payers(connection: Connection, project: ProjectFacts) -> list[Payer]:
    rows = connection.execute(_awards_with_available, {"project_id": project.id})
    return [Payer(row.id, row.start_at, row.end_at, row.balance) for row in rows]


def plan_out(decided: Plan) -> PlanOut:
    """Show a plan, the sum of its hold included."""
    return PlanOut(
        site=decided.placement.site.settings.name,
        project=decided.project.name,
        award=decided.payer.award_id,
        gpu_class=decided.placement.gpu_class,
        gpus=decided.wanted.gpus,
        nodes=decided.wanted.nodes,
        time_limit_s=decided.time_limit_s,
        kill_grace_s=decided.placement.site.settings.kill_grace_s,
        weight_thousandths=decided.weight_thousandths,
        held_credits=decided.held_credits,
        available_credits=decided.payer.available,
        notices=list(decided.notices),
    )


def hold(services: Services, caller: Caller, decided: Plan, record: Any) -> JobOut:
    """Commit the hold with the job behind it; `record` makes the kept answer's row from the answer.

    Raises:
        AwardTooSmall: others were faster.
        RowClash: the same request, or the same free account, was taken at this moment.
        DatabaseUnavailable: no ledger, no job.
    """
    job = _job_row(caller, decided, utcnow())
    answer = job_out(job, caller.name, decided.project.name, decided.placement.site.settings.name)
    rows = (*_rows(decided, job), record(answer))
    outcome = services.writer.post(
        open_hold(job["id"], decided.payer.award_id, decided.held_credits, decided.weight_thousandths, rows)
    )
    if isinstance(outcome, AwardTooSmall):
        raise too_small(decided.project.name, decided.held_credits, _available(services, decided.payer.award_id))
    if isinstance(outcome, QuotaError):
        raise outcome
    services.bell.ring()
    return answer


def _available(services: Services, award_id: str) -> int:
    wanted = select(_ledger_accounts.c.balance).where(_ledger_accounts.c.id == account_id("available", award_id))
    with services.database.rows() as connection:
        balance: int = connection.execute(wanted).scalar_one()
        return balance


def _job_row(caller: Caller, decided: Plan, now: datetime) -> dict[str, Any]:
    wanted, job_id = decided.wanted, new_id("job")
    return {
        "id": job_id,
        "name": wanted.name,
        "person_id": caller.person_id,
        "project_id": decided.project.id,
        "programme_id": decided.project.programme_id,
        "award_id": decided.payer.award_id,
        "site_id": decided.placement.site.id,
        "hold_id": job_id,
        "account": decided.placement.account,
        "state": JobState.HELD.value,
        "reason": None,
        "gpus": wanted.gpus,
        "gpu_class": decided.placement.gpu_class,
        "weight_thousandths": decided.weight_thousandths,
        "nodes": wanted.nodes,
        "cpus_per_gpu": wanted.cpus_per_gpu,
        "memory_mib": wanted.memory_mib,
        "time_limit_s": decided.time_limit_s,
        "deadline_at": decided.payer.end_at,
        "snapshot": wanted.snapshot,
        "script_sha256": sha256((wanted.script or json.dumps(wanted.arguments)).encode()).hexdigest(),
        "notices": list(decided.notices),
        "held_credits": decided.held_credits,
        "created_at": now,
        "tries": 0,
    }


def _rows(decided: Plan, job: Mapping[str, Any]) -> tuple[TableRow, ...]:
    wanted, placement = decided.wanted, decided.placement
    payload = {
        "job_id": job["id"],
        "script": (wanted.script or "").encode(),
        "arguments": wanted.arguments,
        "environment": wanted.environment,
    }
    event = event_row(
        job["id"], JobState.HELD, f"submitted; {hours_text(decided.held_credits)} held", job["created_at"]
    )
    rows: tuple[TableRow, ...] = ((_jobs, job), (_payloads, payload), (_events, event))
    if placement.site.account_is_new:
        account = {
            "site_id": placement.site.id,
            "account": placement.account,
            "project_id": decided.project.id,
        }
        rows = ((_accounts, account), *rows)
    return rows


def job_out(job: Mapping[str, Any], person: str, project: str, site: str) -> JobOut:
    """Show a job from its row and the names behind its ids."""
    return JobOut(
        id=job["id"],
        name=job["name"],
        person=person,
        project=project,
        award=job["award_id"],
        site=site,
        state=JobState(job["state"]),
        reason=job["reason"],
        gpus=job["gpus"],
        gpu_class=job["gpu_class"],
        nodes=job["nodes"],
        time_limit_s=job["time_limit_s"],
        site_job_id=job.get("site_job_id"),
        created_at=job["created_at"],
        started_at=job.get("started_at"),
        ended_at=job.get("ended_at"),
        settled_at=job.get("settled_at"),
        cancel_requested_at=job.get("cancel_requested_at"),
        held_credits=job["held_credits"],
        charged_credits=job.get("charged_credits"),
        exit_code=job.get("exit_code"),
        notices=job["notices"],
    )

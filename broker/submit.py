"""From what an engineer asks to a job with its hold, in one transaction; or the rule that refuses it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Table, bindparam, select

from accounting.tariffs import value_micro_euros
from adapters.arrays import Array, array_words, parse_array
from broker.accounts import namespace_of, waits_for_account
from broker.after import after_rows, check_after, waits_for
from broker.auth import Caller
from broker.bootstrap import Services
from broker.certifications import NEEDS, DataClass, Needs, is_sensitive
from broker.environments import environments_of
from broker.errors import BadRequest, BrokerError, NotAllowed, NotFound, PlacementRefused
from broker.lifecycle import JobState
from broker.memberships import SUBMITTERS, memberships, valid_at
from broker.models import Job, JobEvent, JobPayload, Project, ProjectAccount, Site
from broker.moves import event_row
from broker.paying import Need, Payer, choose, too_small
from broker.placement import Data, Placement, Refused, SiteFacts, none_left, options
from broker.proofs import proofs_by_site
from broker.queues import queue_guards
from broker.schemas import JobIn, JobOut, PlanOut, SiteIn
from broker.settings import ARRAY_TASKS_MAX
from quotas.amounts import hours_text
from quotas.award_life import AwardState
from quotas.award_notices import notices_of
from quotas.ceilings import Limit, Scope, limits_of, reached
from quotas.charging import Rule, rule_for, rules_in_force, sum_lines
from quotas.contracts import ALLOCATED, Capacity, CapacityNeed, capacities, choose_contract, contract_too_small
from quotas.errors import AwardTooSmall, ContractTooSmall, QuotaError
from quotas.holds import Side, open_hold
from quotas.ledger import account_id
from quotas.models import Account, Award, Programme
from quotas.programmes import weights
from quotas.rates import tariff_at
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
SITES_OWN = (PlacementRefused, ContractTooSmall)
"""Refusals that are one site's, and no award's or ceiling's."""
SENT_AHEAD = timedelta(minutes=10)
"""So long before its `begin_at` a job is sent; until then it waits here, and under no ceiling of GPUs."""


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    """A project as a submission sees it."""

    id: str
    name: str
    programme_id: str
    programme_name: str
    confidentiality: str
    nature: str
    default_time_limit_s: int
    expiring_days: int
    export_days: int
    free_hours_first: bool
    images: Sequence[str] | None
    """What its jobs may name; None: any."""

    @property
    def data_class(self) -> DataClass:
        """Both axes of what it computes on."""
        return DataClass(self.confidentiality, self.nature)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided about a submission before its hold."""

    wanted: JobIn
    project: ProjectFacts
    placement: Placement
    payer: Payer
    contract: Capacity
    time_limit_s: int
    need: Need
    contract_credits: int
    """The hold at the contract's weight."""
    limits: tuple[Limit, ...]
    notices: tuple[str, ...]
    array: Array | None = None
    price_micro_euros: int | None = None
    """What the whole hold is worth at today's tariff; None where none is known."""

    @property
    def preference(self) -> tuple[bool, bool]:
        """What comes before every start and price: an account that is there, and free hours where they go first."""
        bought = self.project.free_hours_first and self.contract.kind != ALLOCATED
        return (self.placement.account is None, bought)

    @property
    def deadline_at(self) -> datetime:
        """When its right to run there ends: the award, the contract, or the certification that the data asks for."""
        ends = (self.payer.end_at, self.contract.end_at, self.placement.proven_until)
        return min(end for end in ends if end is not None)

    @property
    def gpus_taken(self) -> int:
        """GPUs that nobody else can use while it runs; of an array, while as many tasks run as may."""
        return self.placement.sized.gpus_taken * (self.array.at_once if self.array else 1)

    @property
    def held_credits(self) -> int:
        """The hold, at the award's weight."""
        return self.need.held_credits

    @property
    def owner_names(self) -> dict[Scope, str]:
        """What people know the owners of ceilings by."""
        return {
            "award": self.payer.award_id,
            "project": self.project.name,
            "programme": self.project.programme_name,
            "site": self.placement.site.settings.name,
        }


@dataclass(frozen=True, slots=True)
class Choices:
    """All sites that were weighed for a job: those that can run it, in the order of preference, and the others."""

    plans: tuple[Plan, ...]
    refused: tuple[Refused, ...]

    @property
    def refusal(self) -> BrokerError | QuotaError:
        """Why there is no plan: an award or a ceiling stands in the way wherever it would run, or each its own."""
        everywhere = [each.error for each in self.refused if not isinstance(each.error, SITES_OWN)]
        return everywhere[0] if everywhere else none_left(self.refused)

    def or_refuse(self) -> tuple[Plan, ...]:
        """Return the plans.

        Raises:
            PlacementRefused, AwardUnknown, AwardNotActive, AwardTooSmall, ContractTooSmall, CeilingReached: there
                is none.
        """
        if not self.plans:
            raise self.refusal
        return self.plans


def plan(
    connection: Connection, caller: Caller, wanted: JobIn, now: datetime, *, array_tasks_max: int = ARRAY_TASKS_MAX,
    needs: Needs = NEEDS,
) -> Plan:  # fmt: skip
    """Decide where a job would run, which award would pay and which contract would give the capacity; change nothing.

    No scheduler is asked when it would start: of several sites it is the first in the order of preference.

    Raises:
        NotFound, NotAllowed, PlacementRefused, AwardUnknown, AwardNotActive, AwardTooSmall, ContractTooSmall,
            CeilingReached: the rule that refuses it.
    """
    return weigh(connection, caller, wanted, now, array_tasks_max=array_tasks_max, needs=needs).or_refuse()[0]


def weigh(
    connection: Connection, caller: Caller, wanted: JobIn, now: datetime, *, array_tasks_max: int = ARRAY_TASKS_MAX,
    needs: Needs = NEEDS, priced: bool = False,
) -> Choices:  # fmt: skip
    """Decide the same for each site, and say why each of the others refuses; `needs` asks for certifications.

    What the hold is worth is looked up where it is `priced`, or helps to choose.

    Raises:
        NotFound, NotAllowed, BadRequest, PlacementRefused: the job is refused whatever the site.
    """
    project = _project(connection, caller, wanted.project, now)
    array = _array(wanted)
    _check_tasks(array, wanted, array_tasks_max)
    time_limit_s, notices = _time_limit(wanted, project)
    timed = wanted.model_copy(update={"time_limit_s": time_limit_s})
    check_signal(timed)
    check_image(wanted.container, project.images)
    check_after(connection, project.id, project.name, wanted)
    data = Data(project.data_class, needs, now)
    sites = _sites(connection, project.id, wanted, rules_in_force(connection, now))
    if is_sensitive(data.data_class, needs):
        proofs = proofs_by_site(connection)
        sites = [replace(site, proofs=proofs.get(site.id, ())) for site in sites]
    placements, refused = options(timed, data, sites, weights(connection, now), array)
    payers = _payers(connection, project, now)
    decided: list[Plan] = []
    for placement in placements:
        try:
            decided.append(_decide(connection, timed, project, placement, payers, notices, now))
        except QuotaError as refusal:
            refused.append(Refused(placement.site, refusal))
    if priced or len(decided) > 1:
        decided = [_priced(connection, each, now) for each in decided]
    return Choices(tuple(sorted(decided, key=lambda each: each.preference)), tuple(refused))


def _priced(connection: Connection, decided: Plan, now: datetime) -> Plan:
    """Say what a plan's whole hold is worth at the tariff of its site."""
    placement = decided.placement
    tariff = tariff_at(connection, placement.site.id, placement.gpu_class, now)
    if tariff is None:
        return decided
    price = value_micro_euros(decided.held_credits, placement.weight_thousandths, tariff)
    return replace(decided, price_micro_euros=price)


def _decide(
    connection: Connection, wanted: JobIn, project: ProjectFacts, placement: Placement, payers: Sequence[Payer],
    notices: tuple[str, ...], now: datetime,
) -> Plan:  # fmt: skip
    """Decide who pays for a job at one site, and which contract gives its capacity.

    Raises:
        ContractTooSmall: no contract there does.
        QuotaError: no award pays, or a ceiling is in the way.
    """
    pay = _payment_need(placement, project, wanted, now)
    payer = choose(payers, wanted.award, pay)
    need = _capacity_need(placement, project, wanted, now)
    contract = choose_contract(capacities(connection, placement.site.id, placement.gpu_class), need)
    decided = Plan(
        wanted=wanted,
        project=project,
        placement=placement,
        payer=payer,
        contract=contract,
        time_limit_s=pay.time_limit_s,
        need=pay,
        contract_credits=need.credits_at(contract.weight_thousandths),
        limits=_limits(connection, project, payer, placement),
        notices=(
            *notices,
            *placement.sized.notices,
            *_requeue_notices(pay),
            *_end_notices(payer, project, now),
            *_account_notice(placement),
        ),
        array=_array(wanted),
    )
    _check_size(decided)
    return decided


def _array(wanted: JobIn) -> Array | None:
    return None if wanted.array is None else parse_array(wanted.array)


def _tasks(wanted: JobIn) -> int:
    array = _array(wanted)
    return len(array.tasks) if array else 1


def _check_tasks(array: Array | None, wanted: JobIn, tasks_max: int) -> None:
    """Refuse an array of more tasks than any may have.

    Raises:
        PlacementRefused: says how many.
    """
    if array is not None and len(array.tasks) > tasks_max:
        raise PlacementRefused(
            f"the array {wanted.array} has {len(array.tasks)} tasks, an array may have {tasks_max}",
            f"submit it in parts of at most {tasks_max} tasks",
        )


def _payment_need(placement: Placement, project: ProjectFacts, wanted: JobIn, now: datetime) -> Need:
    """Return what the award is asked for; fewer GPUs are offered as a way out only where they alone decide."""
    size, rate = placement.sized.size, placement.rate_credits_per_s
    return Need(
        project_name=project.name,
        gpus=size.gpus if rate == size.gpus * placement.weight_thousandths else 0,
        rate_credits_per_s=rate,
        time_limit_s=wanted.time_limit_s or project.default_time_limit_s,
        kill_grace_s=placement.site.settings.kill_grace_s,
        now=now,
        tasks=_tasks(wanted),
        runs=1 + placement.requeues,
        begin_at=wanted.begin_at,
    )


def _capacity_need(placement: Placement, project: ProjectFacts, wanted: JobIn, now: datetime) -> CapacityNeed:
    settings = placement.site.settings
    time_limit_s = wanted.time_limit_s or project.default_time_limit_s
    return CapacityNeed(
        site_name=settings.name,
        gpu_class=placement.gpu_class,
        rule=placement.site.rule,
        size=placement.sized.size,
        seconds=(1 + placement.requeues) * (time_limit_s + settings.kill_grace_s),
        time_limit_s=time_limit_s,
        now=now,
        free_hours_first=project.free_hours_first,
        tasks=_tasks(wanted),
        waits_s=max(0, int((wanted.begin_at - now).total_seconds())) if wanted.begin_at else 0,
    )


def _requeue_notices(need: Need) -> tuple[str, ...]:
    if need.runs == 1:
        return ()
    why = "after a failed node or a preemption: so much is held"
    return (f"the site may run it {need.runs} times, {why} (--no-requeue)",)


def _limits(connection: Connection, project: ProjectFacts, payer: Payer, placement: Placement) -> tuple[Limit, ...]:
    """Return the ceilings that a job comes under."""
    return tuple(
        limits_of(
            connection,
            [
                ("award", payer.award_id),
                ("project", project.id),
                ("programme", project.programme_id),
                ("site", placement.site.id),
            ],
        )
    )


def _check_size(decided: Plan) -> None:
    """Refuse a job that alone has more GPUs than may ever run at once.

    Raises:
        CeilingReached: names the quota.
    """
    gpus, each = decided.gpus_taken, decided.placement.sized.gpus_taken
    for limit in decided.limits:
        if limit.what == "gpus_running" and gpus > limit.amount:
            refusal = reached(limit, decided.owner_names[limit.scope], 0, gpus)
            if decided.array and each <= limit.amount:
                fewer = array_words(decided.array.tasks, limit.amount // each)
                refusal.remedy = f"let fewer tasks run at once: --array {fewer}"
            raise refusal


_mine = (
    select(
        _projects.c.id,
        _projects.c.name,
        _projects.c.programme_id,
        _programmes.c.name.label("programme_name"),
        _projects.c.confidentiality,
        _projects.c.nature,
        *(
            _programmes.c.policy[name].as_integer().label(name)
            for name in ("default_time_limit_s", "expiring_days", "export_days")
        ),
        _programmes.c.policy["free_hours_first"].as_boolean().label("free_hours_first"),
        _programmes.c.policy["images"].as_json().label("images"),
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
    return ProjectFacts(**rows[0]._mapping)


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


def check_signal(wanted: JobIn) -> None:
    """Refuse a signal that would be sent before the job begins.

    Raises:
        BadRequest: says what would pass.
    """
    limit_s = wanted.time_limit_s
    if wanted.signal_s is not None and limit_s is not None and wanted.signal_s >= limit_s:
        raise BadRequest(
            f"the signal would be sent {wanted.signal_s} s before the end of a job of {limit_s} s",
            f"--signal-before with less than {limit_s}, or a longer --time",
        )


def check_image(named: str | None, allowed: Sequence[str] | None) -> None:
    """Refuse an image that the programme does not let its jobs name.

    Raises:
        PlacementRefused: which it lets them name.
    """
    if named is None or allowed is None:
        return
    image = named.removeprefix("docker://")
    if not {image, image.partition("@")[0]} & set(allowed):
        raise PlacementRefused(
            f"the programme does not let its jobs run the image {named}",
            f"--container with one of: {', '.join(allowed)}" if allowed else "leave out --container",
        )


def _end_notices(payer: Payer, project: ProjectFacts, now: datetime) -> tuple[str, ...]:
    """Say that the award which pays ends soon."""
    said = notices_of(AwardState.ACTIVE, payer.start_at, payer.end_at, project.expiring_days, project.export_days, now)
    return tuple(f"award {payer.award_id}: {sentence}" for sentence in said)


def _account_notice(placement: Placement) -> tuple[str, ...]:
    """Say that the job will wait for an account."""
    return () if placement.account is not None else (waits_for_account(placement.site.settings.name),)


_sites_with_accounts = select(
    _site_table.c.id,
    _site_table.c.name,
    _site_table.c.settings,
    _site_table.c.problems,
    _site_table.c.array_size_max,
    _accounts.c.account,
    _accounts.c.project_id,
    _accounts.c.left_at,
).join(_accounts, _accounts.c.site_id == _site_table.c.id, isouter=True)


def _sites(
    connection: Connection, project_id: str, wanted: JobIn, rules: Mapping[tuple[str, str], Rule]
) -> list[SiteFacts]:
    rows: dict[str, list[Any]] = {}
    for row in connection.execute(_sites_with_accounts):
        if wanted.site is None or row.name == wanted.site:
            rows.setdefault(row.id, []).append(row)
    offered = environments_of(connection) if wanted.named_environment is not None else {}
    facts = [_site_facts(SiteIn.model_validate(some[0].settings), project_id, some) for some in rows.values()]
    return [
        replace(
            site,
            rule=rule_for(rules, site.id, site.settings.partition),
            array_size_max=rows[site.id][0].array_size_max,
            environments=offered.get(site.id, {}),
        )
        for site in facts
    ]


def _site_facts(settings: SiteIn, project_id: str, rows: Sequence[Any]) -> SiteFacts:
    """Make the facts of one site from its rows, one for each account that is taken."""
    id_, problems = rows[0].id, rows[0].problems
    if settings.isolation == "shared":
        return SiteFacts(id_, settings, problems, settings.accounts[0], account_is_new=False)
    taken = {row.account for row in rows}
    own = next((row for row in rows if row.account is not None and row.project_id == project_id), None)
    if own is not None:  # one that is being wiped was the project's, and none is until then
        account = own.account if own.left_at is None else None
        return SiteFacts(id_, settings, problems, account, account_is_new=False)
    if settings.kind == "k8s":
        return SiteFacts(id_, settings, problems, namespace_of(project_id), account_is_new=True)
    free = next((account for account in settings.accounts if account not in taken), None)
    return SiteFacts(id_, settings, problems, free, account_is_new=free is not None)


_over = (_awards.c.state.in_([AwardState.EXPIRING.value, AwardState.CLOSED.value])) & (
    _awards.c.end_at <= bindparam("now")
)
"""Awards that have ended pay for nothing, and are named where none is left."""
_available_account, _held_account, _consumed_account = (_ledger_accounts.alias(f"of_{n}") for n in ("a", "h", "c"))
_awards_with_balances = (
    select(
        _awards.c.id,
        _awards.c.start_at,
        _awards.c.end_at,
        _available_account.c.balance,
        _held_account.c.balance,
        _consumed_account.c.balance,
    )
    .join(_available_account, _available_account.c.id == "available:" + _awards.c.id)
    .join(_held_account, _held_account.c.id == "held:" + _awards.c.id)
    .join(_consumed_account, _consumed_account.c.id == "consumed:" + _awards.c.id)
    .where(_awards.c.project_id == bindparam("project_id"))
    .where((_awards.c.state == AwardState.ACTIVE.value) | _over)
)


def _payers(connection: Connection, project: ProjectFacts, now: datetime) -> list[Payer]:
    rows = connection.execute(_awards_with_balances, {"project_id": project.id, "now": now})
    return [Payer(*row) for row in rows]


def plan_out(decided: Plan) -> PlanOut:
    """Show a plan, the sum of its hold included."""
    placement, settings = decided.placement, decided.placement.site.settings
    asked, rule, weight = placement.sized, placement.site.rule, placement.weight_thousandths
    return PlanOut(
        site=settings.name,
        project=decided.project.name,
        award=decided.payer.award_id,
        gpu_class=placement.gpu_class,
        gpus=decided.wanted.gpus,
        cpus=asked.size.cpus,
        memory_mib=asked.memory_mib,
        nodes=decided.wanted.nodes,
        exclusive=asked.size.exclusive,
        partition=settings.partition,
        time_limit_s=decided.time_limit_s,
        kill_grace_s=settings.kill_grace_s,
        weight_thousandths=weight,
        charging_rule=rule.id,
        rate_credits_per_s=placement.rate_credits_per_s,
        sum=_sum(decided, sum_lines(rule, asked.size, weight, decided.time_limit_s, settings.kill_grace_s)),
        array=decided.wanted.array,
        tasks=decided.need.tasks,
        held_credits=decided.held_credits,
        available_credits=decided.payer.available,
        contract=decided.contract.contract_id,
        runs=decided.need.runs,
        begin_at=decided.wanted.begin_at,
        modules=list(placement.tools.modules),
        container=placement.tools.container,
        notices=list(decided.notices),
    )


def _sum(decided: Plan, one_run: list[str]) -> list[str]:
    need, lines = decided.need, [*one_run]
    if need.runs > 1:
        lines.append(f"× {need.runs} runs that the site may give it = {hours_text(need.task_credits)}")
    if need.tasks > 1:
        held = hours_text(need.held_credits)
        lines.append(f"× {need.tasks} tasks = {held}, of which each ended task gives back its rest")
    return lines


def hold(services: Services, caller: Caller, decided: Plan, record: Any) -> JobOut:
    """Commit the hold with the job behind it; `record` makes the kept answer's row from the answer.

    Raises:
        AwardTooSmall, ContractTooSmall, CeilingReached: others were faster.
        RowClash: the same request, or the same free account, was taken at this moment.
        DatabaseUnavailable: no ledger, no job.
    """
    job = _job_row(caller, decided, utcnow())
    answer = job_out(job, caller.name, decided.project.name, decided.placement.site.settings.name)
    rows = (*_rows(decided, job), record(answer))
    award = Side(decided.payer.award_id, decided.held_credits, decided.placement.weight_thousandths)
    contract = Side(decided.contract.contract_id, decided.contract_credits, decided.contract.weight_thousandths)
    outcome = services.writer.post(
        open_hold(
            job["id"], award, contract, rows, queue_guards(decided.limits, decided.owner_names, decided.need.tasks)
        )
    )
    if isinstance(outcome, AwardTooSmall):
        raise too_small(_payer_now(services, decided), decided.need)
    if isinstance(outcome, ContractTooSmall):
        need = _capacity_need(decided.placement, decided.project, decided.wanted, job["created_at"])
        raise contract_too_small(need, _available(services, contract.owner_id) // contract.weight_thousandths)
    if isinstance(outcome, QuotaError):
        raise outcome
    services.bell.ring()
    return answer


def _available(services: Services, owner_id: str) -> int:
    wanted = select(_ledger_accounts.c.balance).where(_ledger_accounts.c.id == account_id("available", owner_id))
    with services.database.rows() as connection:
        balance: int = connection.execute(wanted).scalar_one()
        return balance


def _payer_now(services: Services, decided: Plan) -> Payer:
    with services.database.rows() as connection:
        payers = _payers(connection, decided.project, utcnow())
    return next(payer for payer in payers if payer.award_id == decided.payer.award_id)


def _job_row(caller: Caller, decided: Plan, now: datetime) -> dict[str, Any]:
    wanted, placement, job_id = decided.wanted, decided.placement, new_id("job")
    asked = placement.sized
    return {
        "id": job_id,
        "name": wanted.name,
        "person_id": caller.person_id,
        "project_id": decided.project.id,
        "programme_id": decided.project.programme_id,
        "award_id": decided.payer.award_id,
        "site_id": placement.site.id,
        "hold_id": job_id,
        "account": placement.account,
        "state": JobState.HELD.value,
        "reason": _reason(wanted, placement, now),
        "gpus": wanted.gpus,
        "gpus_taken": decided.gpus_taken,
        "gpu_class": placement.gpu_class,
        "weight_thousandths": placement.weight_thousandths,
        "nodes": wanted.nodes,
        "cpus_per_gpu": asked.cpus_per_gpu,
        "cpus": asked.size.cpus,
        "memory_mib": asked.memory_mib,
        "exclusive": asked.size.exclusive,
        "partition": placement.site.settings.partition,
        "charging_rule_id": placement.site.rule.id,
        "rate_credits_per_s": placement.rate_credits_per_s,
        "time_limit_s": decided.time_limit_s,
        "deadline_at": decided.deadline_at,
        "snapshot": wanted.snapshot,
        "script_sha256": sha256((wanted.script or json.dumps(wanted.arguments)).encode()).hexdigest(),
        "notices": list(decided.notices),
        "held_credits": decided.held_credits,
        "created_at": now,
        "tries": 0,
        "array_words": wanted.array,
        "tasks": decided.need.tasks,
        "tasks_waiting": decided.need.tasks if wanted.array else None,
        "tasks_running": 0 if wanted.array else None,
        "begin_at": wanted.begin_at,
        "next_try_at": wanted.begin_at - SENT_AHEAD if wanted.begin_at else None,
        "signal": wanted.signal,
        "signal_s": wanted.signal_s,
        "requeues": placement.requeues,
    }


def _reason(wanted: JobIn, placement: Placement, now: datetime) -> str | None:
    """Say what a job waits for: an account for its project, or what its engineer asked to wait for."""
    if placement.account is None:
        return waits_for_account(placement.site.settings.name)
    if wanted.begin_at is not None and wanted.begin_at > now:
        return f"it is to begin at {wanted.begin_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return waits_for(wanted)


def _rows(decided: Plan, job: Mapping[str, Any]) -> tuple[TableRow, ...]:
    wanted, placement = decided.wanted, decided.placement
    payload = {
        "job_id": job["id"],
        "script": (wanted.script or "").encode(),
        "arguments": wanted.arguments,
        "environment": wanted.environment,
        "named_environment": wanted.named_environment,
        "modules": list(placement.tools.modules),
        "container": placement.tools.container,
    }
    what = f"submitted, {decided.need.tasks} tasks" if wanted.array else "submitted"
    cause = f"{what}; {hours_text(decided.held_credits)} held"
    event = event_row(job["id"], JobState.HELD, cause, job["created_at"])
    rows: tuple[TableRow, ...] = ((_jobs, job), (_payloads, payload), (_events, event), *after_rows(job["id"], wanted))
    if placement.site.account_is_new:
        account = {
            "site_id": placement.site.id,
            "account": placement.account,
            "project_id": decided.project.id,
            "taken_at": job["created_at"],
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
        cpus=job["cpus"],
        memory_mib=job["memory_mib"],
        nodes=job["nodes"],
        exclusive=job["exclusive"],
        rate_credits_per_s=job["rate_credits_per_s"],
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
        array=job["array_words"],
        tasks=job["tasks"],
        tasks_waiting=job["tasks_waiting"],
        tasks_running=job["tasks_running"],
        begin_at=job["begin_at"],
        requeues=job["requeues"],
        expected_start_at=job.get("expected_start_at"),
        notices=job["notices"],
    )

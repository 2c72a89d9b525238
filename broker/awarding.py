"""Awarding: who may take which step in an award's life, and what else happens when credits are granted."""

from datetime import datetime
from typing import Any

import structlog
from sqlmodel import Session, col, select

from broker import aid
from broker.auth import Caller, may_see, project_role, readable_project
from broker.errors import BadRequest, NotAllowed
from broker.expiry import advance_one
from broker.models import Project
from broker.names import named
from broker.schemas import ApproveIn, AwardIn, OutcomeIn
from quotas import award_changes, awards
from quotas.aid_arithmetic import AidRules
from quotas.award_changes import Outcome
from quotas.award_ends import expired_credits
from quotas.award_life import AwardState, ChangeKind, ChangeState
from quotas.awards import Actor, Papers, Subject, Terms, terms_of
from quotas.errors import AwardUnknown
from quotas.models import Award, AwardChange, Programme

_AID_KINDS: dict[str, aid.GrantKind] = {"award": "grant", "supplement": "supplement", "transfer": "transfer"}
log = structlog.get_logger()


def actor(caller: Caller) -> Actor:
    """Return a caller as the money's side knows people."""
    return Actor(caller.person_id, is_manager="manager" in caller.roles)


def subject_of(session: Session, project: Project) -> Subject:
    """Return a project as the money's side knows it."""
    programme = session.get_one(Programme, project.programme_id)
    return Subject(project.id, programme, project.confidentiality, project.nature)


def visible_award(session: Session, caller: Caller, award_id: str, *, to_ask: bool = False) -> Award:
    """Return an award that the caller may see; with `to_ask`, for which they may also ask something.

    Raises:
        AwardUnknown: there is none, or it is somebody else's; the answer is the same.
        NotAllowed: the caller sees it, and may ask nothing for its project.
    """
    award = session.get(Award, award_id)
    if award is None or not may_see(session, caller, award.project_id):
        raise AwardUnknown(f"no award {award_id} of yours", "`idf-compute award list` shows them")
    if to_ask:
        check_may_ask(session, caller, award.project_id)
    return award


def visible_change(session: Session, caller: Caller, change_id: str) -> AwardChange:
    """Return a change that the caller may take back or decide.

    Raises:
        AwardUnknown: there is none, or it is somebody else's; the answer is the same.
        NotAllowed: the caller may ask nothing for its project.
    """
    change = session.get(AwardChange, change_id)
    award = session.get(Award, change.award_id) if change else None
    if change is None or award is None or not may_see(session, caller, award.project_id):
        raise AwardUnknown(f"no change {change_id} of yours", "`idf-compute award changes` shows them")
    check_may_ask(session, caller, award.project_id)
    return change


def check_may_ask(session: Session, caller: Caller, project_id: str) -> None:
    """Refuse who may not speak for a project about its awards: its leads and the Region's managers may.

    Raises:
        NotAllowed: says who may.
    """
    if "manager" not in caller.roles and project_role(session, caller, project_id) != "lead":
        raise NotAllowed(
            "only a lead of the project, or a manager of the Region, may do this", "ask a lead of the project"
        )


def check_may_request(session: Session, caller: Caller, project_name: str) -> None:
    """Refuse who may not ask for an award for a project.

    Raises:
        NotFound: there is no such project, or it is somebody else's; the answer is the same.
        NotAllowed: says who may.
    """
    check_may_ask(session, caller, readable_project(session, caller, project_name).id)


def request(session: Session, caller: Caller, body: AwardIn, at: datetime) -> Award:
    """Ask for an award; see quotas.awards.request."""
    project, papers = _wanted(session, caller, body)
    return awards.request(session, subject_of(session, project), _terms(body), actor(caller), papers, at)


def grant(session: Session, caller: Caller, body: AwardIn, at: datetime, rules: AidRules) -> Award:
    """Request and approve in one step; see quotas.awards.grant."""
    project, papers = _wanted(session, caller, body)
    award = awards.grant(session, subject_of(session, project), _terms(body), actor(caller), papers, at)
    if award.state == AwardState.ACTIVE.value:
        granted(session, award, award.proposed_credits, "award", at, rules)
    return award


def approve(session: Session, caller: Caller, award_id: str, body: ApproveIn, at: datetime, rules: AidRules) -> Award:
    """Approve an award, on other terms where some are given; see quotas.awards.approve."""
    award = awards.locked(session, award_id)
    subject = subject_of(session, session.get_one(Project, award.project_id))
    asked = terms_of(award)
    terms = Terms(body.amount_credits or asked.credits, body.start_on or asked.start_on, body.end_on or asked.end_on)
    if terms.end_on < terms.start_on:
        raise BadRequest(f"the award would end on {terms.end_on}, before it starts", "give both --from and --to")
    papers = Papers(act_reference=body.act_reference, act_on=body.act_on)
    award = awards.approve(session, award_id, subject, actor(caller), at, terms=terms, papers=papers)
    if award.state == AwardState.ACTIVE.value:
        granted(session, award, award.proposed_credits, "award", at, rules)
    return award


def ask_change(session: Session, caller: Caller, change: AwardChange, at: datetime, rules: AidRules) -> AwardChange:
    """Decide a change at once where its asker may: a manager's own, unless a second one must approve it too."""
    if "manager" not in caller.roles or change.state != ChangeState.REQUESTED.value:
        return change
    return approve_change(session, caller, change.id, at, rules)


def approve_change(session: Session, caller: Caller, change_id: str, at: datetime, rules: AidRules) -> AwardChange:
    """Approve a change; see quotas.award_changes.approve_change. What went back by it is aid no longer."""
    change = award_changes.approve_change(session, change_id, actor(caller), at)
    if change.state != ChangeState.GRANTED.value:
        return change
    kind = ChangeKind(change.kind)
    giver = session.get_one(Award, change.award_id)
    if kind is ChangeKind.TRANSFER:
        aid.take_back(session, giver, change.amount_credits or 0, change.id, at)
    if kind is ChangeKind.CLOSURE:
        aid.take_back(session, giver, expired_credits(session, giver.id), change.id, at)
        advance_one(session, giver.id, at)
    if change.amount_credits is not None:
        receiver = session.get_one(Award, change.other_award_id or change.award_id)
        granted(session, receiver, change.amount_credits, kind.value, at, rules)
    return change


def close(
    session: Session, caller: Caller, award: Award, body: OutcomeIn, at: datetime, rules: AidRules
) -> AwardChange | None:
    """Ask for the early closure of an award, or, of one that has ended, only keep what came of it: None then."""
    fields: dict[str, Any] = body.model_dump(exclude={"reason"})
    outcome = Outcome(**fields)
    ended = award.end_at <= at or AwardState(award.state) in (AwardState.EXPIRING, AwardState.CLOSED)
    if ended:
        advance_one(session, award.id, at)
        award_changes.answer_late(session, award.id, outcome, actor(caller), at)
        return None
    change = award_changes.ask_closure(session, award.id, outcome, body.reason, actor(caller), at)
    return ask_change(session, caller, change, at, rules)


def granted(session: Session, award: Award, amount_credits: int, kind: str, at: datetime, rules: AidRules) -> None:
    """Do what belongs to every grant of credits, in its own transaction: count it as State aid. Called once for each.

    `kind` is `award`, `supplement` or `transfer`; of a transfer, `award` is the one that receives.

    Raises:
        AidRefused: the rule, with the arithmetic.
    """
    aid.count_grant(session, rules, award, amount_credits, at, _AID_KINDS[kind])
    log.info("credits-granted", award=award.id, kind=kind, amount_credits=amount_credits)


def _wanted(session: Session, caller: Caller, body: AwardIn) -> tuple[Project, Papers]:
    project = named(session, Project, body.project)
    if body.continues is not None:
        before = session.exec(
            select(Award).where(col(Award.id) == body.continues, col(Award.project_id) == project.id)
        ).one_or_none()
        if before is None:
            raise AwardUnknown(
                f"project {project.name} has no award {body.continues} to go on from",
                "`idf-compute award list` shows its awards",
            )
    return project, Papers(body.purpose, body.act_reference, body.act_on, body.continues)


def _terms(body: AwardIn) -> Terms:
    return Terms(body.amount_credits, body.start_on, body.end_on)

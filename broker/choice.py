"""Which of the sites that can run a job is chosen, and the table of all of them that a dry run prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from broker.placement import Refused
from broker.schemas import SiteChoice
from broker.starts import LATE, SAME, expected
from broker.submit import Choices, Plan

if TYPE_CHECKING:
    from broker.bootstrap import Services

ASKED_MAX = 8
"""How many sites' schedulers are asked when they would start one job."""
DEAR = 2**63
"""More than any price: what a site whose tariff is unknown is taken for."""


def best(services: "Services", plans: Sequence[Plan]) -> Plan:
    """Return the plan that is carried out, of those that come in the order of `Plan.preference`.

    Of those that stand equally well it is the one that starts first; of those within a minute of it, and of unknown
    ones, the one that costs the award least, then the one whose hours are worth least, then the first by name.
    """
    alike = [plan for plan in plans if plan.preference == plans[0].preference][:ASKED_MAX]
    if len(alike) == 1:
        return alike[0]
    starts = [forecast.start or LATE for forecast in expected(services, alike)]
    first = min(starts)
    return min((plan for plan, start in zip(alike, starts, strict=True) if start - first < SAME), key=_price)


def table(services: "Services", choices: Choices, chosen: Plan | None) -> list[SiteChoice]:
    """Return every site that was weighed: the chosen one, those that could run the job too, and those that refuse."""
    asked = [*([chosen] if chosen else []), *(plan for plan in choices.plans if plan is not chosen)]
    starts = expected(services, asked[:ASKED_MAX])
    rows = [_offer(plan, chosen=plan is chosen) for plan in asked]
    for row, forecast in zip(rows, starts, strict=False):
        row.expected_start_at, row.expected_start_unknown = forecast.start, forecast.unknown
    return [*rows, *map(_refusal, choices.refused)]


def _price(plan: Plan) -> tuple[int, int]:
    return plan.held_credits, DEAR if plan.price_micro_euros is None else plan.price_micro_euros


def _offer(plan: Plan, *, chosen: bool) -> SiteChoice:
    settings = plan.placement.site.settings
    return SiteChoice(
        site=settings.name,
        kind=settings.kind,
        chosen=chosen,
        gpu_class=plan.placement.gpu_class,
        contract_kind=plan.contract.kind,
        held_credits=plan.held_credits,
        price_micro_euros=plan.price_micro_euros,
        expected_start_unknown=f"only {ASKED_MAX} sites are asked",
    )


def _refusal(refused: Refused) -> SiteChoice:
    settings, error = refused.site.settings, refused.error
    said = {"code": error.code, "detail": error.detail, "remedy": error.remedy}
    return SiteChoice(site=settings.name, kind=settings.kind, **said)

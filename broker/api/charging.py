"""Charging rules: what the partitions of a site count, from which day on."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlmodel import Session, col, select

from broker.api.edge import ANYBODY, At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.errors import NameTaken
from broker.models import Site
from broker.names import named
from broker.schemas import ChargingRuleIn, ChargingRuleOut, Page, Slug
from quotas.amounts import day_start
from quotas.charging import Rule, enter_rule
from quotas.models import ChargingRule

router = APIRouter(route_class=GuardedRoute, tags=["sites"])


@router.post("/charging-rules", status_code=201, response_model=ChargingRuleOut, openapi_extra=allow("operator"))
def create_charging_rule(body: ChargingRuleIn, at: At) -> Response:
    """Say what the jobs of a site's partition count from a day on; jobs held before keep their own rule."""

    def act(session: Session) -> ChargingRuleOut:
        site = named(session, Site, body.site)
        wanted = Rule(**{**body.model_dump(exclude={"site"}), "valid_from": day_start(body.valid_from)})
        _check_free(session, site, wanted)
        return _out(enter_rule(session, site.id, wanted), site.name)

    return at.once(body, act)


def _check_free(session: Session, site: Site, wanted: Rule) -> None:
    taken = select(ChargingRule.id).where(
        ChargingRule.site_id == site.id,
        ChargingRule.partition == wanted.partition,
        ChargingRule.valid_from == wanted.valid_from,
    )
    if session.exec(taken).first() is not None:
        where = f"partition {wanted.partition} of site {site.name}" if wanted.partition else f"site {site.name}"
        raise NameTaken(f"{where} has a charging rule from that day already", "choose another day")


@router.get("/charging-rules", openapi_extra=allow(*ANYBODY))
def list_charging_rules(
    at: At, site: Annotated[Slug | None, Query()] = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[ChargingRuleOut]:
    """List charging rules in the order in which they were entered, those of the past included."""
    with at.read() as session:
        wanted: Any = select(ChargingRule, Site.name).join(Site, col(Site.id) == ChargingRule.site_id)
        if site is not None:
            wanted = wanted.where(ChargingRule.site_id == named(session, Site, site).id)
        rows = session.execute(after(wanted, col(ChargingRule.id), cursor, limit)).all()
        return page([_out(rule, name) for rule, name in rows], limit, "id")


def _out(rule: ChargingRule, site: str) -> ChargingRuleOut:
    return ChargingRuleOut(site=site, **rule.model_dump(include=set(ChargingRuleOut.model_fields) - {"site"}))

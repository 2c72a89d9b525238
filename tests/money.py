"""What tests of tariffs, refunds and adjustments share: a tariff, refusals, and a site that changes its mind."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import col, select
from world import World

from adapters.fake import FakeScheduler
from broker.known import job_name
from quotas.models import Transfer

TARIFF = {"site": "teratec", "gpu_class": "a100-80", "micro_euros_per_gpu_hour": 2_350_000, "valid_from": "2026-01-01"}
EVER = "/reports/gpu?from=2026-01-01&to=2100-01-01"


def refusal(region: World, path: str, body: Any, person: str = "marc") -> Any:
    answer = region.call(person, "POST", path, body)
    assert answer.status_code >= 400, answer.text
    return answer.json()


def details(region: World, job_id: str) -> list[tuple[str, str | None]]:
    """The kinds and details of a job's transfers, in the chain's order."""
    with region.services.database.read() as session:
        wanted = select(Transfer).where(col(Transfer.reference_id) == job_id).order_by(col(Transfer.sequence))
        return [(row.kind, row.details) for row in session.exec(wanted)]


def share(region: World, company: int, partner: int = 0) -> None:
    """Let others pay a part from the beginning: written past the API, which takes days to come only."""
    with region.services.database.write() as session:
        columns = "region_thousandths = :r, company_thousandths = :c, partner_thousandths = :p"
        parts = {"r": 1000 - company - partner, "c": company, "p": partner}
        session.execute(text(f"UPDATE funding_share SET {columns}"), parts)


def fake(region: World) -> FakeScheduler:
    assert isinstance(region.scheduler, FakeScheduler)
    return region.scheduler


def start(region: World, **changes: Any) -> str:
    """Submit a job and let it start; return its id."""
    job_id: str = region.submit(**changes)["id"]
    region.step()
    fake(region).advance(0)
    region.step()
    return job_id


def reports(region: World, job_id: str, seconds: int, number: int = -1, **changes: Any) -> None:
    """Let the site report of an attempt that it ran so long, whatever it had said before."""
    job = next(job for job in fake(region).jobs.values() if job.spec.name == job_name(job_id))
    attempt = job.attempts[number]
    assert attempt.started_at is not None
    ended_at = attempt.started_at + timedelta(seconds=seconds)
    job.attempts[number] = replace(attempt, ended_at=ended_at, **changes)


def ran(region: World, seconds: int, **changes: Any) -> str:
    """Let a job run so long, however little it had asked for, and settle it; return its id."""
    job_id = start(region, **changes)
    fake(region).finish(job_name(job_id))
    reports(region, job_id, seconds)
    region.step()
    return job_id

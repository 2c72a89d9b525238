"""What a site says of an attempt after settlement becomes a further record and an adjustment, and changes no other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from money import EVER, TARIFF, details, fake, ran, reports, start
from sqlalchemy import text
from sqlmodel import col, select
from world import HOUR, World, world

from accounting.models import UsageRecord
from adapters.errors import Unreachable
from broker import recheck as rechecking
from broker.known import job_name
from broker.recheck import recheck, recheck_all
from broker.reconcile import reconcile
from quotas.corrections import payers_of
from quotas.models import Account

S = 2000
"""Credits of a second of one a100-80."""
HELD = (3600 + 60) * S
ASKED = {"reason": "node_failure", "evidence": "ticket 123"}


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []
        report = made.get("marc", EVER)
        assert report["agrees"], report


def money(region: World) -> tuple[int, int, int]:
    """What is consumed, what of it is overrun, and what is missing from the award."""
    award = region.award()
    assert award["held_credits"] == 0
    return award["consumed_credits"], award["overrun_credits"], 100 * HOUR - award["available_credits"]


def contract(region: World) -> tuple[int, int]:
    with region.services.database.read() as session:
        rows = session.exec(select(Account).where(col(Account.owner_id).startswith("ctr-"))).all()
        kinds = {row.kind: row.balance for row in rows}
        return kinds["consumed"], -kinds["overrun"]


@pytest.mark.parametrize(
    ("first", "later"),
    [(600, 900), (600, 300), (600, 0), (600, 3660), (600, 4000), (4000, 5000), (5000, 4000), (4000, 1)],
)
def test_the_charge_follows_what_the_site_says_now(region: World, first: int, later: int) -> None:
    region.post("marc", "/tariffs", TARIFF)
    job_id = ran(region, first)
    reports(region, job_id, later)
    assert recheck(region.desk()) == 1
    overrun = max(0, later * S - HELD)
    assert money(region) == (later * S, overrun, later * S - overrun)
    assert contract(region) == (later * S, overrun)
    job = region.job(job_id)
    assert job["charged_credits"] == later * S
    assert [(usage["revision"], usage["elapsed_s"]) for usage in job["usage"]] == [(2, later)]
    assert job["worth"]["value_micro_euros"] == later * 2_350_000 // 3600
    assert job["events"][-1]["state"] == job["state"]
    assert job["events"][-1]["cause"].startswith(f"adjusted: the site now reports {later} s on 1 GPUs, charged ")
    row = region.get("marc", EVER)["rows"][0]
    assert (row["attempts"], row["charged_credits"], row["overrun_credits"]) == (1, later * S, overrun)
    assert recheck(region.desk()) == 0, "a second look finds nothing new"


def test_the_chain_tells_by_how_much_the_value_changed(region: World) -> None:
    region.post("marc", "/tariffs", TARIFF)
    job_id = ran(region, 3600)
    reports(region, job_id, 1800)
    recheck(region.desk())
    assert dict(details(region, job_id))["adjust"] == (
        "weight=2000;tariff=2350000;value=-1175000;region=-1175000;company=0;partner=0"
    )


def test_a_change_without_a_known_value_says_so(region: World) -> None:
    job_id = ran(region, 3600)
    region.post("marc", "/tariffs", {**TARIFF, "valid_from": "2099-01-01"})
    reports(region, job_id, 1800)
    recheck(region.desk())
    assert dict(details(region, job_id))["adjust"] == "weight=2000;value=unknown"
    assert region.get("marc", EVER)["rows"][0]["unvalued_attempts"] == 1


def test_both_records_stand_and_only_the_newest_counts(region: World) -> None:
    job_id = ran(region, 600)
    for later in (700, 800):
        reports(region, job_id, later)
        recheck(region.desk())
    with region.services.database.read() as session:
        rows = session.exec(select(UsageRecord).order_by(col(UsageRecord.revision))).all()
        assert [(row.revision, row.elapsed_s) for row in rows] == [(1, 600), (2, 700), (3, 800)]
        assert [row.id for row in rows] == [rows[0].attempt_id, *(f"{rows[0].attempt_id}/{n}" for n in (2, 3))]
    assert [kind for kind, _ in details(region, job_id) if kind == "adjust"] == ["adjust"] * 2


def test_other_gpus_are_a_revision_though_the_charge_stays(region: World) -> None:
    job_id = ran(region, 600)
    reports(region, job_id, 300, gpus=2)
    assert recheck(region.desk()) == 1
    assert money(region) == (600 * S, 0, 600 * S)
    assert [kind for kind, _ in details(region, job_id) if kind == "adjust"] == []
    assert region.job(job_id)["usage"][0]["gpus"] == 2


def test_an_attempt_seen_only_after_settlement_is_charged_then(region: World) -> None:
    job_id = start(region)
    fake(region).advance(100)
    fake(region).requeue(job_name(job_id))
    fake(region).advance(0)
    fake(region).advance(200)
    fake(region).finish(job_name(job_id))
    job = next(job for job in fake(region).jobs.values() if job.spec.name == job_name(job_id))
    unseen = job.attempts.pop(0)
    region.step()
    assert region.job(job_id)["charged_credits"] == 200 * S
    job.attempts.insert(0, unseen)
    assert recheck(region.desk()) == 1
    assert money(region) == (300 * S, 0, 300 * S)
    done = region.job(job_id)
    assert done["charged_credits"] == 300 * S
    assert done["events"][-1]["cause"] == (
        "adjusted: the site reports a run of 100 s on 1 GPUs that was not seen before, charged 0.055 h"
    )


def test_a_job_that_was_lost_and_is_found_again_is_charged(region: World) -> None:
    job_id = start(region)
    job = next(job for job in fake(region).jobs.values() if job.spec.name == job_name(job_id))
    fake(region).forget(job_name(job_id))
    region.services.settings.lost_after_s = 0
    region.step()
    assert (region.job(job_id)["state"], money(region)) == ("lost", (0, 0, 0))
    fake(region).jobs[job.site_job_id] = job
    assert recheck(region.desk()) == 0, "it still runs: nothing is known yet of what it will have used"
    fake(region).advance(60)
    fake(region).finish(job_name(job_id))
    assert recheck(region.desk()) == 1
    assert money(region) == (60 * S, 0, 60 * S)
    assert region.job(job_id)["state"] == "lost"


def test_more_than_the_award_has_goes_to_overrun(region: World) -> None:
    job_id = ran(region, 600)
    left = region.award()["available_credits"]
    region.submit(gpus=8, time_limit_s=left // (8 * S) // 60 * 60 - 120)
    left = region.award()["available_credits"]
    reports(region, job_id, 3600)
    recheck(region.desk())
    award = region.award()
    wanted = 3000 * S
    assert left < wanted
    assert (award["available_credits"], award["overrun_credits"]) == (0, wanted - left)


def test_refunds_never_exceed_an_adjusted_charge_and_come_again_with_it(region: World) -> None:
    region.post("marc", "/tariffs", TARIFF)
    job_id = ran(region, 600)
    region.post("marc", "/refunds", {**ASKED, "job_id": job_id, "with_contract": True})
    for seconds, refunded in ((400, 400), (500, 500), (900, 600)):
        reports(region, job_id, seconds)
        recheck(region.desk())
        job = region.job(job_id)
        assert (job["charged_credits"], job["refunded_credits"]) == (seconds * S, refunded * S)
        assert money(region) == ((seconds - refunded) * S, 0, (seconds - refunded) * S)
        assert contract(region) == ((seconds - refunded) * S, 0)
        values = [refund["value_micro_euros"] for refund in job["refunds"]]
        assert abs(sum(values) - refunded * 2_350_000 // 3600) <= 1
        report = region.get("marc", EVER)
        assert report["agrees"]
        assert report["refunded_credits"] == refunded * S
    assert [refund["reason"] for refund in job["refunds"]] == ["node_failure", *["adjusted"] * 3]
    assert [refund["requested_by"] for refund in job["refunds"][1:]] == [None] * 3


def test_a_refund_of_overrun_stays_one_when_the_charge_falls(region: World) -> None:
    job_id = ran(region, 4000)
    region.post("marc", "/refunds", {**ASKED, "job_id": job_id, "amount_credits": 400 * S})
    assert money(region) == (3600 * S, 0, 3600 * S)
    reports(region, job_id, 3700)
    recheck(region.desk())
    assert money(region) == (3300 * S, 0, 3300 * S)


def test_only_what_was_settled_lately_is_looked_at(region: World) -> None:
    job_id = ran(region, 600)
    reports(region, job_id, 900)
    with region.services.database.write() as session:
        session.execute(text("UPDATE job SET settled_at = settled_at - 4 * 86400000000"))
    assert recheck(region.desk()) == 0
    region.services.settings.recheck_days = 5
    assert recheck(region.desk()) == 1


def test_silence_and_absence_change_nothing(region: World) -> None:
    job_id = ran(region, 600)
    fake(region).faults.accounting_away = True
    assert recheck(region.desk()) == 0
    fake(region).faults.accounting_away = False
    fake(region).forget(job_name(job_id))
    assert recheck(region.desk()) == 0
    assert money(region) == (600 * S, 0, 600 * S)


def test_an_attempt_that_cannot_be_metered_holds_up_no_other(region: World) -> None:
    first, second = ran(region, 600), ran(region, 600)
    reports(region, first, 700, gpus=None)
    reports(region, second, 700)
    assert recheck(region.desk()) == 1
    assert region.job(first)["charged_credits"] == 600 * S


def test_jobs_are_looked_at_in_bounded_numbers(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [ran(region, 600) for _ in range(3)]
    monkeypatch.setattr(rechecking, "OBSERVED_MAX", 1)
    for job_id in ids:
        reports(region, job_id, 700)
    monkeypatch.setattr(rechecking, "OBSERVATIONS_MAX", 2)
    assert recheck(region.desk()) == 2, "the newest two"
    monkeypatch.setattr(rechecking, "OBSERVATIONS_MAX", 4)
    assert recheck(region.desk()) == 1


def test_the_chore_looks_at_every_site_and_survives_one_that_is_away(region: World) -> None:
    job_id = ran(region, 600)
    reports(region, job_id, 700)
    fake(region).faults.away = True
    with pytest.raises(Unreachable):
        recheck(region.desk())
    recheck_all(region.services)
    assert region.job(job_id)["charged_credits"] == 600 * S
    fake(region).faults.away = False
    recheck_all(region.services)
    assert region.job(job_id)["charged_credits"] == 700 * S


def test_a_hold_older_than_contracts_has_one_payer(region: World) -> None:
    job_id = ran(region, 600)
    columns = ", ".join(f"contract_{name} = NULL" for name in ("id", "amount", "remaining", "weight_thousandths"))
    with region.services.database.engine.connect() as connection:  # never committed
        connection.execute(text(f"UPDATE hold SET {columns}"))
        assert [payer.prefix for payer in payers_of(connection, job_id)] == [""]
    with region.services.database.read() as session:
        assert [payer.prefix for payer in payers_of(session.connection(), job_id)] == ["", "contract-"]


def test_two_workers_that_see_the_same_change_post_it_once(region: World) -> None:
    job_id = ran(region, 600)
    desk = region.desk()
    reports(region, job_id, 700)
    rows = rechecking._settled(desk, None)
    observed = {
        job_name(rows[0].id): tuple(map(fake(region)._with_elapsed, next(iter(fake(region).jobs.values())).attempts))
    }
    [seen] = rechecking._changed(desk, rows, observed)
    assert rechecking._adjust(desk, seen)
    assert not rechecking._adjust(desk, seen)
    assert reconcile(desk) == 0
    assert money(region) == (700 * S, 0, 700 * S)

"""Weights and tariffs by date, and what charges are worth: exact, or unknown with the reason."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from money import EVER, TARIFF, details, ran, refusal, share
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from world import World, world

from accounting.models import ChargeValue
from cli.units import paris_today
from quotas.errors import RateRefused
from quotas.programmes import set_weight
from quotas.rates import check_slices_weigh_less, next_tariff_at, set_tariff, tariff_at, tariffs, weight_history
from storage.database import Database
from storage.tables import utcnow

TOMORROW = paris_today() + timedelta(days=1)


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []


def test_a_charge_keeps_weight_tariff_value_and_who_pays(region: World) -> None:
    share(region, company=500, partner=100)
    region.post("marc", "/tariffs", TARIFF)
    job = region.charged(seconds=600, gpus=2)
    value = 2 * 600 * 2_350_000 // 3600
    assert value == 783_333
    worth = {"value_micro_euros": value, "region_micro_euros": 313_333, "company_micro_euros": 391_667,
             "partner_micro_euros": 78_333, "unknown_reason": None}  # fmt: skip
    assert job["worth"] == worth
    usage = job["usage"][0]
    assert {name: usage[name] for name in worth} == worth
    assert (usage["weight_thousandths"], usage["tariff_micro_euros"], usage["revision"]) == (2000, 2_350_000, 1)
    said = dict(details(region, job["id"]))
    assert said["settle"] == ("weight=2000;tariff=2350000;value=783333;region=313333;company=391667;partner=78333")
    assert [text for kind, text in details(region, job["id"]) if kind != "settle"] == [None] * 5
    row = region.get("marc", EVER)["rows"][0]
    assert (row["value_micro_euros"], row["company_micro_euros"], row["unvalued_attempts"]) == (value, 391_667, 0)


def test_what_goes_beyond_the_hold_is_valued_with_the_rest_and_told_once(region: World) -> None:
    region.post("marc", "/tariffs", TARIFF)
    job_id = ran(region, 7200, time_limit_s=3600)
    assert region.award()["overrun_credits"] == (7200 - 3660) * 2000
    assert region.job(job_id)["worth"]["value_micro_euros"] == 4_700_000
    said = [(kind, text) for kind, text in details(region, job_id) if kind in ("settle", "overrun")]
    assert [(kind, text is not None) for kind, text in said] == [("settle", True), ("overrun", False)]


def test_without_a_tariff_the_value_is_unknown_and_counted_until_one_is_entered(region: World) -> None:
    job = region.charged()
    assert job["usage"][0]["value_micro_euros"] is None
    assert "no tariff of a100-80" in job["usage"][0]["unknown_reason"]
    assert "no tariff of a100-80" in job["worth"]["unknown_reason"]
    assert dict(details(region, job["id"]))["settle"] == "weight=2000;value=unknown"
    report = region.get("marc", EVER)
    assert (report["rows"][0]["value_micro_euros"], report["rows"][0]["unvalued_attempts"]) == (None, 1)
    assert region.post("olga", "/tariffs/complete") == {"valued": 0, "unknown": 1}
    entered = region.post("marc", "/tariffs", TARIFF)
    assert (entered["valued"], entered["unknown"]) == (1, 0)
    assert region.job(job["id"])["worth"]["value_micro_euros"] == 391_666
    assert region.get("marc", EVER)["rows"][0]["value_micro_euros"] == 391_666
    assert region.post("marc", "/tariffs/complete") == {"valued": 0, "unknown": 0}
    assert dict(details(region, job["id"]))["settle"] == "weight=2000;value=unknown", "the chain keeps what it was told"


def test_a_known_and_an_unknown_value_are_not_added_up_as_if_both_were_known(region: World) -> None:
    region.charged()
    with region.services.database.write() as session:
        site_id = region.desk().site_id
        set_tariff(session, site_id, "a100-80", utcnow(), 3_600_000)
    region.scheduler.advance(30)  # type: ignore[attr-defined]
    region.charged(seconds=100)
    row = region.get("marc", EVER)["rows"][0]
    assert (row["attempts"], row["unvalued_attempts"], row["value_micro_euros"]) == (2, 1, 100_000)


def test_an_attempt_that_cost_nothing_is_worth_nothing_for_sure(region: World) -> None:
    job = region.submit()
    region.step()
    region.post("ines", f"/jobs/{job['id']}/cancel")
    region.step()
    region.step()
    done = region.job(job["id"])
    assert (done["state"], done["charged_credits"]) == ("cancelled", 0)
    assert done["worth"]["value_micro_euros"] == 0
    assert done["usage"][0]["unknown_reason"] is None


def test_an_unsettled_job_has_no_value_yet(region: World) -> None:
    assert region.job(region.submit()["id"])["worth"]["unknown_reason"] == "it is not settled yet"


def test_the_tariff_is_that_of_the_start_and_never_split(region: World) -> None:
    with region.services.database.write() as session:
        site_id, now = region.desk().site_id, utcnow()
        set_tariff(session, site_id, "a100-80", now - timedelta(days=1), 3_600_000)
        set_tariff(session, site_id, "a100-80", now + timedelta(seconds=300), 7_200_000)
    first = region.charged(seconds=600)
    assert first["usage"][0]["tariff_micro_euros"] == 3_600_000
    assert first["worth"]["value_micro_euros"] == 600_000
    assert region.charged(seconds=600)["usage"][0]["tariff_micro_euros"] == 7_200_000


def test_a_tariff_from_a_past_day_is_refused_once_something_was_valued_at_another(region: World) -> None:
    region.post("marc", "/tariffs", TARIFF)
    today = {**TARIFF, "valid_from": str(paris_today()), "micro_euros_per_gpu_hour": 1}
    waiting = region.submit()
    problem = refusal(region, "/tariffs", today)
    assert (problem["code"], problem["remedy"]) == ("rate-refused", "let it begin on a day from tomorrow on")
    region.post("ines", f"/jobs/{waiting['id']}/cancel")
    region.step()
    region.charged()
    assert refusal(region, "/tariffs", today)["code"] == "rate-refused"
    region.post("marc", "/tariffs", {**today, "valid_from": str(TOMORROW)})
    between = {**TARIFF, "valid_from": "2026-02-01"}
    assert refusal(region, "/tariffs", between)["code"] == "rate-refused", "it would be in force today"
    region.post("marc", "/tariffs", {**TARIFF, "valid_from": "2025-01-01"})
    listed = region.get("olga", f"/tariffs?at={TOMORROW}")["items"]
    assert [item["micro_euros_per_gpu_hour"] for item in listed] == [1]
    assert region.get("olga", "/tariffs")["items"][0]["micro_euros_per_gpu_hour"] == 2_350_000
    assert region.get("olga", "/tariffs?at=2024-12-31")["items"] == []


def test_a_tariff_between_two_is_refused_only_for_what_it_covers(region: World) -> None:
    region.post("marc", "/tariffs", TARIFF)
    yesterday = paris_today() - timedelta(days=1)
    region.post("marc", "/tariffs", {**TARIFF, "valid_from": str(paris_today())})
    region.charged()
    region.submit()
    region.post("marc", "/tariffs", {**TARIFF, "valid_from": str(yesterday)})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"gpu_class": "h100-80"}, "not-found"),
        ({"site": "nowhere"}, "not-found"),
        ({"micro_euros_per_gpu_hour": -1}, "invalid-request"),
        ({"micro_euros_per_gpu_hour": 2.5}, "invalid-request"),
    ],
)
def test_bad_tariffs_are_refused(region: World, change: Any, code: str) -> None:
    assert refusal(region, "/tariffs", {**TARIFF, **change})["code"] == code


def test_one_day_has_one_tariff_and_a_day_out_of_reach_has_none(region: World) -> None:
    region.post("marc", "/tariffs", TARIFF)
    assert refusal(region, "/tariffs", TARIFF)["code"] == "name-taken"
    assert region.call("marc", "GET", "/tariffs?at=9999-12-31").status_code == 400


def test_jobs_without_a_gpu_have_a_tariff_though_no_weight(region: World) -> None:
    assert region.post("marc", "/tariffs", {**TARIFF, "gpu_class": "cpu"})["gpu_class"] == "cpu"


def test_a_weight_from_a_past_day_is_refused_once_a_job_was_held_at_another(region: World) -> None:
    today = {"name": "a100-80", "weight_thousandths": 2500, "valid_from": str(paris_today())}
    region.submit()
    problem = refusal(region, "/gpu-classes", today)
    assert (problem["code"], problem["remedy"]) == ("rate-refused", "let it begin on a day from tomorrow on")
    region.post("marc", "/gpu-classes", {**today, "valid_from": str(TOMORROW)})
    region.post("marc", "/gpu-classes", {**today, "valid_from": "2025-06-01"})
    history = region.get("ines", "/gpu-classes/history?name=a100-80")["items"]
    assert [item["weight_thousandths"] for item in history] == [2500, 2000, 2500]
    assert region.call("ines", "GET", "/gpu-classes/history?name=x").status_code == 404


def test_a_slice_weighs_less_than_its_gpu_at_all_times(region: World) -> None:
    slice_ = {"name": "a100-80.1g.10gb", "weight_thousandths": 2000, "valid_from": "2026-03-01"}
    problem = refusal(region, "/gpu-classes", slice_)
    assert "the slice a100-80.1g.10gb would weigh 2 and the whole a100-80 2" in problem["detail"]
    assert problem["remedy"] == "give a100-80.1g.10gb a weight below 2"
    region.post("marc", "/gpu-classes", {**slice_, "weight_thousandths": 250})
    lighter = {"name": "a100-80", "weight_thousandths": 250, "valid_from": str(TOMORROW)}
    assert refusal(region, "/gpu-classes", lighter)["remedy"] == "give a100-80 a weight above 0.25"


def test_slices_are_compared_from_the_new_weight_on(database: Database) -> None:
    day = [datetime(2026, month, 1, tzinfo=UTC) for month in range(1, 7)]
    with database.write() as session:
        set_weight(session, "h.1g", 900, day[0])
        connection = session.connection()
        check_slices_weigh_less(connection, "h.2g", 5000, day[0])  # the whole is not known yet
        set_weight(session, "h", 1000, day[1])
        set_weight(session, "h", 4000, day[3])
        set_weight(session, "h-x.1g", 9000, day[0])  # another GPU's
        with pytest.raises(RateRefused, match=r"slice h\.1g would weigh 1\.5 and the whole h 1"):
            check_slices_weigh_less(connection, "h.1g", 1500, day[2])
        check_slices_weigh_less(connection, "h.1g", 1500, day[3])
        with pytest.raises(RateRefused, match=r"would weigh 0\.9 and the whole h 0\.8"):
            check_slices_weigh_less(connection, "h", 800, day[5])
        assert [row.weight_thousandths for row in weight_history(session, "h")] == [1000, 4000]


def test_the_tariff_in_force_is_the_newest_that_has_begun(database: Database) -> None:
    now = utcnow()
    with database.write() as session:
        connection = session.connection()
        assert tariff_at(connection, "s", "c", now) is None
        for days, amount in ((-2, 5), (2, 9), (-1, 7)):
            set_tariff(session, "s", "c", now + timedelta(days=days), amount)
        set_tariff(session, "r", "c", now, 0)
        assert tariff_at(connection, "s", "c", now) == 7
        assert tariff_at(connection, "r", "c", now) == 0, "free is known"
        assert next_tariff_at(connection, "s", "c", now) == now + timedelta(days=2)
        assert [(t.site_id, t.micro_euros_per_gpu_hour) for t in tariffs(connection, now)] == [("r", 0), ("s", 7)]


@pytest.mark.parametrize(
    "change",
    [
        "value_micro_euros = NULL",
        "unknown_reason = 'x'",
        "region_micro_euros = region_micro_euros + 1",
        "valued_at = NULL",
    ],
)
def test_the_database_itself_keeps_values_whole(region: World, change: str) -> None:
    region.post("marc", "/tariffs", TARIFF)
    region.charged()
    with region.services.database.read() as session:
        assert session.exec(select(ChargeValue.region_thousandths)).all() == [1000]
    with pytest.raises(IntegrityError), region.services.database.write() as session:
        session.execute(text(f"UPDATE charge_value SET {change}"))

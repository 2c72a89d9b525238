"""A POST may be repeated: the first answer comes again, and nothing is done twice."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from httpx import Response
from requests_by_route import BODIES
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session
from world import HOUR, JOB, World, world

import quotas.writer
from broker.models import Idempotency, Job, Membership, Person
from quotas.ledger import Outcome, Posting, post
from quotas.models import Hold
from storage.tables import metadata

KEY = "6f1c2b0e"


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []


def path_of(region: World, route: str) -> str:
    of = {"projects": "vision", "programmes": "pack-ia-2026", "sites": "teratec"}
    names = {
        "contract_id": region.get("marc", "/contracts")["items"][0]["id"],
        "job_id": "",
        "token_id": "",
        "name": of.get(route.split("/")[1], ""),
        "organisation": "acme",
        "person": "ines",
    }
    if "{award_id}" in route:
        names["award_id"] = region.award_for(route)
    if "{certification_id}" in route:
        names["certification_id"] = region.certification()
    if "{change_id}" in route:
        names["change_id"] = region.change_for()
    if "{job_id}" in route:
        names["job_id"] = region.submit(**({"array": "0-1"} if "{task}" in route else {}))["id"]
        names["task"] = "0"
    if "{token_id}" in route:
        names["token_id"] = region.get("nemo", "/tokens")["items"][0]["id"]
    if "{refund_id}" in route:
        wanted = {**BODIES["/refunds"][1], "job_id": region.charged()["id"]}  # type: ignore[dict-item]
        names["refund_id"] = region.post("olga", "/refunds", wanted)["id"]
    return route.format(**names)


def count(region: World, model: Any) -> int:
    with region.services.database.read() as session:
        return int(session.execute(select(func.count()).select_from(model)).scalar_one())


def repeated(region: World, *, times: int, person: str, path: str, body: Any, key: str = KEY) -> list[Response]:
    """Send the same request from several threads at one instant."""
    barrier = threading.Barrier(times)

    def send(_: int) -> Response:
        barrier.wait()
        return region.call(person, "POST", path, body, key=key)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(send, range(times)))


def test_every_post_needs_a_key(region: World) -> None:
    for route, (person, body) in BODIES.items():
        headers = {"Authorization": f"Bearer {region.tokens[person]}"}
        path = path_of(region, route)
        for key in (None, "", "k" * 201):
            sent = headers if key is None else {**headers, "Idempotency-Key": key}
            answer = region.client.post(f"/v1{path}", json=body, headers=sent)
            assert (answer.status_code, answer.json()["code"]) == (400, "idempotency-key-missing"), route


def test_a_repeat_gets_the_first_answer_byte_for_byte(region: World) -> None:
    for route in sorted(set(BODIES) - {"/tokens", "/jobs/plan", "/programmes/{name}/policy/plan"}):
        person, body = BODIES[route]
        body = {**body, "to_award": region.award("voice")["id"]} if body and "to_award" in body else body
        if route == "/refunds":
            body = {**(body or {}), "job_id": region.charged()["id"]}
        path = path_of(region, route)
        first = region.call(person, "POST", path, body, key=KEY)
        assert first.status_code in (200, 201), first.text
        again = region.call(person, "POST", path, body, key=KEY)
        assert (again.status_code, again.content) == (first.status_code, first.content), route
        assert again.headers["content-type"] == first.headers["content-type"]


def test_the_same_key_with_another_body_is_refused(region: World) -> None:
    region.submit(gpus=1)
    region.post("ines", "/jobs", JOB, key=KEY)
    answer = region.call("ines", "POST", "/jobs", {**JOB, "gpus": 2}, key=KEY)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency-key-reused")
    assert count(region, Job) == 2


def test_the_same_key_for_another_thing_on_the_same_route_is_refused(region: World) -> None:
    first, second = (region.submit()["id"] for _ in range(2))
    region.post("ines", f"/jobs/{first}/cancel", key=KEY)
    assert region.call("ines", "POST", f"/jobs/{second}/cancel", key=KEY).status_code == 409
    assert region.job(second)["state"] == "held"


def test_a_key_is_a_persons_and_a_routes_own(region: World) -> None:
    job = region.post("ines", "/jobs", JOB, key=KEY)
    other = region.post("paul", "/jobs", {**JOB, "project": "voice"}, key=KEY)
    assert other["id"] != job["id"]
    assert region.post("ines", "/jobs/plan", JOB, key=KEY)["project"] == "vision"
    assert region.post("ines", f"/jobs/{job['id']}/cancel", key=KEY)["state"] == "cancelled"
    assert region.post("ines", "/jobs", JOB, key=KEY)["state"] == "held", "as it was answered first"


def test_a_refusal_is_not_kept(region: World) -> None:
    refused = region.call("ines", "POST", "/jobs", {**JOB, "gpus": 9}, key=KEY)
    assert refused.status_code == 422
    assert region.call("ines", "POST", "/jobs", {**JOB, "gpus": 8}, key=KEY).status_code == 201


def test_a_member_who_left_gets_no_repeat(region: World) -> None:
    job = region.post("ines", "/jobs", JOB, key=KEY)
    cancelled = region.call("ines", "POST", f"/jobs/{job['id']}/cancel", key=KEY)
    with region.services.database.write() as session:
        session.execute(delete(Membership))
    for path, body in (("/jobs", JOB), (f"/jobs/{job['id']}/cancel", None)):
        answer = region.call("ines", "POST", path, body, key=KEY)
        assert answer.status_code == 404
        assert answer.content != cancelled.content


@pytest.mark.parametrize(
    ("person", "route"), [("marc", "/organisations"), ("olga", "/persons"), ("olga", "/tokens/{token_id}/revoke")]
)
def test_a_role_that_was_taken_away_gets_no_repeat(region: World, person: str, route: str) -> None:
    path, body = path_of(region, route), BODIES[route][1]
    region.post(person, path, body, key=KEY)
    with region.services.database.write() as session:
        session.execute(update(Person).where(Person.name == person).values(roles=["engineer"]))  # type: ignore[arg-type]
    assert region.call(person, "POST", path, body, key=KEY).status_code in (403, 404)


def test_the_secret_of_a_token_is_neither_kept_nor_told_again(region: World) -> None:
    made = region.post("ines", "/tokens", {"person": "ines"}, key=KEY)
    again = region.call("ines", "POST", "/tokens", {"person": "ines"}, key=KEY)
    assert (again.status_code, again.json()["code"]) == (409, "answer-not-kept")
    assert made["id"] in again.json()["detail"]
    secret = made["token"].split("_", 2)[2]
    assert secret not in again.text
    assert secret not in everything(region)
    assert len(region.get("ines", "/tokens")["items"]) == 2


def everything(region: World) -> str:
    """All that the database holds, as text."""
    with region.services.database.read() as session:
        return "\n".join(repr(row) for table in metadata.sorted_tables for row in session.execute(select(table)))


@pytest.mark.parametrize("route", ["/jobs", "/organisations"])
def test_a_key_is_new_again_after_a_day(region: World, route: str) -> None:
    person, body = BODIES[route]
    other = {**body, "name": "another"} if body else None
    region.post(person, route, body, key=KEY)
    age(region, timedelta(hours=23, minutes=59))
    assert region.call(person, "POST", route, other, key=KEY).status_code == 409
    age(region, timedelta(minutes=2))
    assert region.call(person, "POST", route, other, key=KEY).status_code == 201
    assert region.call(person, "POST", route, body, key=KEY).status_code == 409


def age(region: World, by: timedelta) -> None:
    with region.services.database.write() as session:
        for kept in session.scalars(select(Idempotency)).all():
            kept.created_at -= by


def test_eight_times_the_same_job_at_one_instant_is_one_job(region: World) -> None:
    answers = repeated(region, times=8, person="ines", path="/jobs", body=JOB)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert (count(region, Job), count(region, Hold)) == (1, 1)


@pytest.mark.parametrize("route", ["/organisations", "/awards", "/programmes"])
def test_eight_times_the_same_at_one_instant_is_done_once(region: World, route: str) -> None:
    person, body = BODIES[route]
    answers = repeated(region, times=8, person=person, path=route, body=body)
    assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
    assert len({answer.content for answer in answers}) == 1


def test_eight_people_who_want_one_name_are_told_so(region: World) -> None:
    barrier = threading.Barrier(8)

    def send(number: int) -> int:
        barrier.wait()
        return region.call("marc", "POST", "/organisations", {"name": "same"}, key=f"key-{number}").status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(send, range(8))) == [201] + [409] * 7


def test_eight_times_the_same_token_at_one_instant_is_shown_once(region: World) -> None:
    answers = repeated(region, times=8, person="ines", path="/tokens", body={"person": "ines"})
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert len(region.get("ines", "/tokens")["items"]) == 2


def test_a_crash_before_the_commit_keeps_nothing(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashes(session: Session, postings: Sequence[Posting], at: Any) -> list[Outcome]:
        post(session, postings, at)  # type: ignore[arg-type]
        raise RuntimeError("the power went off")

    monkeypatch.setattr(quotas.writer, "post", crashes)
    assert region.call("ines", "POST", "/jobs", JOB, key=KEY).status_code == 500
    monkeypatch.undo()
    assert (count(region, Job), count(region, Hold)) == (0, 0)
    assert region.award()["available_credits"] == 100 * HOUR
    assert region.post("ines", "/jobs", JOB, key=KEY)["state"] == "held"
    assert count(region, Job) == 1

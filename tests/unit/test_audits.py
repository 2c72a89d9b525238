"""Audits of sites: what is kept of them, who sees what, and which jobs go where meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import select, update
from world import World, world

from adapters.errors import Unreachable
from adapters.port import SiteFacts
from adapters.upkeep import Finding, Severity
from broker.models import ProjectAccount, Site

DISK = Finding("disk-full", Severity.PROBLEM, "no room is left", "remove something")
SLOW = Finding("sbatch-slow", Severity.ADVICE, "sbatch takes 3.0 s to answer", "see sdiag")


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made


def check(region: World) -> dict[str, dict[str, str]]:
    answer = region.post("olga", "/sites/teratec/check")
    return {one["code"]: one for one in answer["findings"]}


def test_an_enrolment_is_an_audit_and_its_findings_are_kept_with_their_time(region: World) -> None:
    region.upkeep.findings = (DISK, SLOW)
    enrolled = region.enrol_site(name="second", accounts=["idf008", "idf009"])
    assert [one["code"] for one in enrolled["findings"]] == ["disk-full", "sbatch-slow"]
    assert enrolled["findings"][0]["remedy"] == "remove something"
    kept = region.get("alma", "/sites/second/audit")
    assert kept["findings"] == enrolled["findings"]
    assert kept["checked_at"] is not None
    assert kept["proven_at"] is not None
    assert "no room is left" in region.refused(site="second")["detail"]


def test_advice_keeps_no_job_away(region: World) -> None:
    region.upkeep.findings = (SLOW,)
    assert set(check(region)) == {"sbatch-slow"}
    assert region.submit()["state"] == "held"


def test_a_site_where_a_crossing_succeeded_takes_no_job_until_none_does(region: World) -> None:
    region.upkeep.isolated = False
    assert "could read a file" in check(region)["isolation-broken"]["sentence"]
    assert region.get("olga", "/sites/teratec/audit")["proven_at"] is None
    told = region.refused()["detail"]
    assert "not proven to be isolated" in told
    assert "could read" not in told, "which way stands open is not for everybody to know"
    shown = next(site for site in region.get("ines", "/sites")["items"] if site["name"] == "teratec")
    assert shown["problems"] == ["its project accounts are not proven to be isolated from each other"]
    assert "findings" not in shown
    region.upkeep.isolated = True
    assert check(region) == {}
    assert region.submit()["state"] == "held"


def take(region: World, *accounts: str) -> None:
    """Let the pool have one account fewer than the proof needs."""
    with region.services.database.write() as session:
        site = session.exec(select(Site)).one()
        site.settings = {**site.settings, "accounts": list(accounts)}
        session.add(site)


def test_the_last_proof_stands_while_too_few_accounts_are_free(region: World) -> None:
    region.submit()
    region.step()
    take(region, "idf001", "idf002")
    found = check(region)["isolation-not-proven"]
    assert found["severity"] == "advice"
    assert "last proven on 20" in found["sentence"]
    assert region.submit()["state"] == "held"


def test_it_does_not_stand_once_a_crossing_succeeded(region: World) -> None:
    region.upkeep.isolated = False
    check(region)
    take(region, "idf001")
    assert check(region)["isolation-not-proven"]["severity"] == "problem"


def test_a_pool_too_small_to_prove_anything_is_a_problem(region: World) -> None:
    enrolled = region.enrol_site(name="single", accounts=["idf009"])
    assert [one["code"] for one in enrolled["findings"]] == ["isolation-not-proven"]
    assert enrolled["problems"]


def test_accounts_that_projects_have_are_never_used_for_the_proof(
    region: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with a wipe. Another enrolment behind the same login is the same machine."""
    region.submit()
    region.submit("paul", project="voice")
    asked = []
    real = region.upkeep.audit
    monkeypatch.setattr(region.upkeep, "audit", lambda expected: (asked.append(expected.free), real(expected))[1])
    check(region)
    region.enrol_site(name="twin")
    assert asked == [["idf003"], ["idf003"]]
    with region.services.database.read() as session:
        taken = session.exec(select(ProjectAccount.account)).all()
    assert sorted(taken) == ["idf001", "idf002"]


def test_a_site_that_does_not_answer_says_so_and_keeps_its_proof(region: World) -> None:
    before = region.get("olga", "/sites/teratec/audit")["proven_at"]
    region.upkeep.away = True
    assert check(region)["site-silent"]["severity"] == "problem"
    assert region.get("olga", "/sites/teratec/audit")["proven_at"] == before


def test_another_cluster_behind_the_address_is_a_problem(region: World) -> None:
    region.upkeep.cluster = "other"
    assert "calls its cluster other, the enrolment fake" in check(region)["cluster-other"]["sentence"]


REST = {"transport": "rest", "rest_url": "http://127.0.0.1:6820"}


def test_what_jobs_are_sent_by_is_looked_at_as_well(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    region.upkeep.findings = (DISK,)
    said = SiteFacts("fake 1", "fake", ("no room is left: remove something", "slurmrestd is of no use"))
    monkeypatch.setattr(region.scheduler, "check", lambda: said)
    over_ssh = region.enrol_site(name="over-ssh", accounts=["idf008", "idf009"])
    assert [one["code"] for one in over_ssh["findings"]] == ["disk-full"]
    enrolled = region.enrol_site(name="by-rest", accounts=["idf006", "idf007"], **REST)
    found = {one["code"]: one for one in enrolled["findings"]}
    assert set(found) == {"disk-full", "transport-unusable"}, "what the audit found already is not told twice"
    assert found["transport-unusable"]["sentence"] == "slurmrestd is of no use"
    assert "slurmrestd is of no use" in enrolled["problems"]


def test_a_site_that_its_transport_does_not_reach_takes_no_job(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> SiteFacts:
        raise Unreachable("connection refused")

    monkeypatch.setattr(region.scheduler, "check", away)
    enrolled = region.enrol_site(name="by-rest", accounts=["idf006", "idf007"], **REST)
    assert enrolled["problems"] == ["the site does not answer by rest: connection refused"]


def test_a_repeated_enrolment_gets_its_first_answer_and_audits_nothing(region: World) -> None:
    from world import SITE

    body = {**SITE, "name": "third", "accounts": ["idf008", "idf009"]}
    first = region.call("olga", "POST", "/sites", body, key="same")
    calls = region.upkeep.calls.count("audit")
    again = region.call("olga", "POST", "/sites", body, key="same")
    assert (again.status_code, again.content) == (201, first.content)
    taken = region.call("olga", "POST", "/sites", body, key="other")
    assert (taken.status_code, taken.json()["code"]) == (409, "name-taken")
    assert region.upkeep.calls.count("audit") == calls


def test_a_site_of_one_account_needs_no_proof(region: World) -> None:
    enrolled = region.enrol_site(name="shared", isolation="shared", accounts=["idf"])
    assert enrolled["problems"] == []
    assert enrolled["proven_at"] is None


def test_the_last_audit_is_for_those_who_see_to_sites(region: World) -> None:
    with region.services.database.write() as session:
        session.execute(update(Site).values(findings=[]))
    for person, status in {"olga": 200, "alma": 200, "marc": 403, "ines": 403}.items():
        assert region.call(person, "GET", "/sites/teratec/audit").status_code == status

"""Nobody comes in where they may not: the whole OpenAPI document, walked with every kind of token."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from httpx import Response
from requests_by_route import BODIES
from sqlmodel import col, select, update
from world import PEOPLE, SITE, World, world

from adapters.fake import FakeScheduler
from adapters.port import AttemptState
from broker.auth import new_token
from broker.known import job_name
from broker.models import Job, JobEvent, Person
from storage.tables import new_id, utcnow

ROLES = {"engineer": "ines", "manager": "marc", "operator": "olga", "auditor": "alma"}
OPEN = {("GET", "/v1/health")}
"""The only operation without a token. The document /v1/openapi.json is open too: it holds no data, only what
docs.python would print, and a client must read it before it can log in."""


class Operation(NamedTuple):
    method: str
    path: str
    declared: dict[str, Any]

    @property
    def roles(self) -> list[str]:
        return list(self.declared["x-roles"])


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made


def operations(region: World) -> list[Operation]:
    document = region.client.get("/v1/openapi.json").json()
    found = [
        Operation(method.upper(), path, declared)
        for path, methods in document["paths"].items()
        for method, declared in methods.items()
    ]
    assert len(found) > 25
    return found


def ask(
    region: World, operation: Operation, token: str | None, job_id: str = "job-x", person: str = "nobody"
) -> Response:
    """Ask with an empty body: whoever is let in meets the next rule, whoever is not never gets that far."""
    values = {"job_id": job_id, "name": SITE["name"], "token_id": "nothing", "contract_id": "ctr-x", "digest": "0" * 64}
    values |= {"certification_id": "crt-x"}
    values |= {"refund_id": "rfd-x", "task": "0"}
    values |= {"organisation": "acme", "person": person, "award_id": "awd-x", "change_id": "chg-x"}
    path = re.sub(r"{(\w+)}", lambda match: values[match[1]], operation.path)
    headers = {"Idempotency-Key": f"{operation.method}{path}{token}"[:200]}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    body = {} if operation.method == "POST" else None
    return region.client.request(operation.method, path, json=body, headers=headers)


def token_of(region: World, person: str, *, days: int = 1, revoked: bool = False) -> str:
    with region.services.database.write() as session:
        owner = session.exec(select(Person).where(Person.name == person)).one()
        text, row = new_token(owner.id, "tests", timedelta(days=days))
        row.revoked_at = utcnow() if revoked else None
        session.add(row)
    return text


def test_no_operation_answers_without_a_good_token(region: World) -> None:
    good = region.tokens["olga"]
    bad = {
        "none": None,
        "garbage": "garbage",
        "empty": "",
        "of the right shape": f"idf_{'0' * 12}_{'A' * 43}",
        "one character off": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "with a prefix only": good[:16],
        "revoked": token_of(region, "olga", revoked=True),
        "past its end": token_of(region, "olga", days=-1),
    }
    for operation in operations(region):
        for kind, token in bad.items():
            answer = ask(region, operation, token)
            wanted = 200 if (operation.method, operation.path) in OPEN else 401
            assert answer.status_code == wanted, (operation.path, kind)
            if wanted == 401:
                assert answer.json()["code"] == "not-authenticated"
                assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_every_operation_lets_in_its_roles_and_no_others(region: World) -> None:
    for operation in operations(region):
        if (operation.method, operation.path) in OPEN:
            continue
        assert operation.roles, operation.path
        assert set(operation.roles) <= set(ROLES)
        for role, person in ROLES.items():
            array = {"array": "0"} if "tasks" in operation.path else {}
            job_id = region.submit(**array)["id"] if "job_id" in operation.path else "job-x"
            answer = ask(region, operation, region.tokens[person], job_id, person)
            if role in operation.roles:
                assert answer.status_code not in (401, 403, 500), (operation.path, role, answer.text)
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed"), (operation.path, role)


def test_undeclared_paths_and_methods_show_nothing(region: World) -> None:
    headers = {"Authorization": f"Bearer {region.tokens['olga']}"}
    for path in ("/", "/v1", "/v1/nothing", "/docs", "/redoc", "/openapi.json", "/v1/jobs/"):
        assert region.client.get(path, headers=headers, follow_redirects=False).status_code in (404, 307), path
    for method in ("DELETE", "PATCH", "PUT", "TRACE"):
        answer = region.client.request(method, "/v1/jobs", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (405, "method-not-allowed")


def test_another_projects_job_is_as_good_as_none(region: World) -> None:
    job_id = region.submit("ines")["id"]
    nothing = job_id[:-4] + "0000"
    for method, path in (("GET", "/jobs/{}"), ("GET", "/jobs/{}/log"), ("POST", "/jobs/{}/cancel")):
        for person in ("paul", "nemo"):
            theirs = region.call(person, method, path.format(job_id))
            none = region.call(person, method, path.format(nothing))
            assert theirs.status_code == none.status_code == 404
            assert theirs.text.replace(job_id, nothing) == none.text
    assert region.job(job_id)["state"] == "held"


@pytest.mark.parametrize("path", ["/jobs?project={}", "/quota?project={}"])
def test_another_project_is_as_good_as_none(region: World, path: str) -> None:
    theirs = region.call("paul", "GET", path.format("vision"))
    none = region.call("paul", "GET", path.format("visiom"))
    assert theirs.status_code == none.status_code == 404
    assert theirs.text.replace("vision", "visiom") == none.text


def test_a_job_for_another_project_is_refused_as_for_none(region: World) -> None:
    theirs, none = region.refused("paul", project="vision"), region.refused("paul", project="visiom")
    assert (theirs["code"], theirs["status"]) == ("not-found", 404)
    assert theirs["detail"].replace("vision", "visiom") == none["detail"]


def test_lists_hold_only_what_is_ones_own(region: World) -> None:
    job_id = region.submit("ines")["id"]
    assert [job["id"] for job in region.get("ines", "/jobs")["items"]] == [job_id]
    assert region.get("paul", "/jobs")["items"] == []
    assert [project["name"] for project in region.get("paul", "/projects")["items"]] == ["voice"]
    assert {award["project"] for award in region.get("paul", "/quota")["awards"]} == {"voice"}
    assert {token["person"] for token in region.get("paul", "/tokens")["items"]} == {"paul"}
    assert region.get("nemo", "/quota")["awards"] == []
    assert region.get("alma", "/jobs")["items"][0]["id"] == job_id


def test_a_token_of_somebody_else_is_neither_made_nor_revoked(region: World) -> None:
    own = region.get("ines", "/tokens")["items"][0]["id"]
    assert region.call("paul", "POST", f"/tokens/{own}/revoke").status_code == 404
    assert region.call("paul", "POST", "/tokens", {"person": "ines"}).status_code == 403
    assert region.call("paul", "POST", "/tokens", {"person": "olga"}).status_code == 403
    assert region.get("ines", "/me")["person"]["name"] == "ines"


def test_a_revoked_token_is_refused_at_once(region: World) -> None:
    made = region.post("ines", "/tokens", {"person": "ines"})
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert region.client.get("/v1/me", headers=headers).status_code == 200
    region.post("ines", f"/tokens/{made['id']}/revoke")
    assert region.client.get("/v1/me", headers=headers).status_code == 401


def test_unknown_fields_are_refused_by_name(region: World) -> None:
    with_body = {o.path for o in operations(region) if o.method == "POST" and "requestBody" in o.declared}
    assert {f"/v1{route}" for route, (_, body) in BODIES.items() if body is not None} == with_body
    for route, (person, body) in BODIES.items():
        if body is None:
            continue
        path = route.format_map(defaultdict(lambda: "x", name="vision", organisation="acme", person="ines"))
        answer = region.call(person, "POST", path, {**body, "tiem_limit": 1})
        assert answer.status_code == 422, route
        assert "tiem_limit" in answer.json()["detail"], route


def test_people_of_the_world_have_one_role_each() -> None:
    assert all(PEOPLE[person] == [role] for role, person in ROLES.items())


PARTS = ("lead", "member", "viewer", "coach", "left", "stranger")
"""What an engineer may be to a project: one of its four roles, somebody who left it, or somebody of another project."""

Statuses = tuple[int, int, int, int, int, int]
ANY: Statuses = (200, 200, 200, 200, 200, 200)
"""What does not depend on any project, or shows what is one's own; see also MINE."""
BY_PART: dict[tuple[str, str], Statuses] = {
    #                                           lead, member, viewer, coach, left, stranger
    ("POST", "/v1/jobs"): (201, 201, 403, 403, 404, 404),
    ("POST", "/v1/jobs/plan"): (200, 200, 403, 403, 404, 404),
    ("GET", "/v1/jobs"): (200, 200, 200, 200, 404, 404),
    ("GET", "/v1/jobs/{job_id}"): (200, 200, 200, 200, 404, 404),
    ("GET", "/v1/jobs/{job_id}/log"): (200, 200, 200, 403, 404, 404),
    ("GET", "/v1/jobs/{job_id}/site-events"): (200, 200, 200, 403, 404, 404),
    ("GET", "/v1/jobs/{job_id}/outputs"): (200, 200, 200, 403, 404, 404),
    ("GET", "/v1/jobs/{job_id}/outputs/content"): (404, 404, 404, 403, 404, 404),  # the job was not sent yet
    ("POST", "/v1/jobs/{job_id}/cancel"): (200, 200, 403, 403, 404, 404),
    ("GET", "/v1/jobs/{job_id}/tasks"): (200, 200, 200, 200, 404, 404),
    ("GET", "/v1/jobs/{job_id}/tasks/{task}"): (200, 200, 200, 200, 404, 404),
    ("POST", "/v1/jobs/{job_id}/tasks/{task}/cancel"): (200, 200, 403, 403, 404, 404),
    ("POST", "/v1/quota/why"): (200, 200, 403, 403, 404, 404),
    ("GET", "/v1/quota"): (200, 200, 200, 200, 404, 404),
    ("GET", "/v1/certifications"): ANY,
    ("GET", "/v1/projects"): ANY,
    ("GET", "/v1/projects/{name}/members"): (200, 200, 200, 200, 404, 404),
    ("POST", "/v1/projects/{name}/members"): (201, 403, 403, 403, 404, 404),
    ("POST", "/v1/projects/{name}/members/leave"): (200, 403, 403, 403, 404, 404),
    ("POST", "/v1/awards/request"): (201, 403, 403, 403, 404, 404),
    ("GET", "/v1/awards"): (200, 200, 200, 200, 404, 404),
    ("GET", "/v1/awards/{award_id}"): (200, 200, 200, 200, 404, 404),
    ("GET", "/v1/awards/{award_id}/events"): (200, 200, 200, 200, 404, 404),
    ("GET", "/v1/awards/{award_id}/aid-letter"): (404, 403, 403, 403, 404, 404),  # a lead's: this award is no aid
    ("POST", "/v1/awards/{award_id}/comments"): (201, 403, 403, 403, 404, 404),
    ("POST", "/v1/awards/{award_id}/withdraw"): (200, 403, 403, 403, 404, 404),
    ("POST", "/v1/awards/{award_id}/supplements"): (201, 403, 403, 403, 404, 404),
    ("POST", "/v1/awards/{award_id}/extensions"): (201, 403, 403, 403, 404, 404),
    ("POST", "/v1/awards/{award_id}/transfers"): (201, 403, 403, 403, 404, 404),
    ("POST", "/v1/awards/{award_id}/close"): (200, 403, 403, 403, 404, 404),
    ("POST", "/v1/awards/{award_id}/justification"): (200, 403, 403, 403, 404, 404),
    ("GET", "/v1/forecasts"): (200, 200, 200, 200, 404, 404),
    ("GET", "/v1/reclaims"): (200, 200, 200, 200, 404, 404),
    ("GET", "/v1/award-changes"): ANY,
    ("POST", "/v1/award-changes/{change_id}/withdraw"): (200, 403, 403, 403, 404, 404),
    ("GET", "/v1/reports/gpu"): ANY,
    ("GET", "/v1/me"): ANY,
    ("POST", "/v1/persons/{person}"): ANY,
    ("POST", "/v1/tokens"): (201, 201, 201, 201, 201, 201),
    ("GET", "/v1/tokens"): ANY,
    ("POST", "/v1/tokens/{token_id}/revoke"): ANY,
    ("GET", "/v1/sites"): ANY,
    ("GET", "/v1/environments"): ANY,
    ("GET", "/v1/gpu-classes"): ANY,
    ("GET", "/v1/gpu-classes/history"): ANY,
    ("GET", "/v1/charging-rules"): ANY,
    ("PUT", "/v1/snapshots/{digest}"): (201, 201, 201, 201, 201, 201),
    ("GET", "/v1/snapshots/{digest}"): ANY,
}
QUERIES = {
    "/v1/jobs/{job_id}/outputs/content": "?path=model.pt",
    "/v1/jobs": "?project=vision",
    "/v1/quota": "?project=vision",
    "/v1/awards": "?project=vision",
    "/v1/forecasts": "?project=vision",
    "/v1/reclaims": "?project=vision",
    "/v1/reports/gpu": "?from=2020-01-01&to=2099-12-31",
    "/v1/gpu-classes/history": "?name=a100-80",
}
SNAPSHOT = b"\x1f\x8b a folder"
JOB_NAME, SCRIPT, CAUSE = "canary-of-the-name", "#!/bin/sh\necho canary-of-the-script\n", "canary-of-the-cause"
MODULE = "canary-of-the-module"


@pytest.fixture
def parts(region: World) -> World:
    """The region with one engineer for each part in the project `vision`, and a job of its own."""
    with region.services.database.write() as session:
        for part in PARTS:
            person = Person(id=new_id("psn"), name=part, roles=["engineer"], created_at=utcnow())
            session.add(person)
            session.flush()
            region.tokens[part], row = new_token(person.id, "tests", timedelta(days=1))
            session.add(row)
    for part in ("lead", "member", "viewer", "coach"):
        region.post("marc", "/projects/vision/members", {"person": part, "role": part})
    region.post("marc", "/projects/vision/members", {"person": "left", "role": "lead"})
    region.post("marc", "/projects/vision/members/leave", {"person": "left"})
    region.post("marc", "/projects/voice/members", {"person": "stranger", "role": "lead"})
    return region


def ask_well(region: World, part: str, method: str, path: str, job_id: str) -> Response:
    """Ask for something of the project `vision`, so that nothing but one's part in it can refuse it."""
    token_id = region.post(part, "/tokens", {"person": part})["id"] if "token_id" in path else ""
    digest = sha256(SNAPSHOT).hexdigest()
    route = path.removeprefix("/v1")
    values = {"job_id": job_id, "name": "vision", "token_id": token_id, "digest": digest, "person": part, "task": "0"}
    values |= {"award_id": region.award_for(route) if "award_id" in path else ""}
    values |= {"change_id": region.change_for() if "change_id" in path else ""}
    address = f"/v1{route.format(**values)}{QUERIES.get(path, '') if method == 'GET' else ''}"
    headers = {"Authorization": f"Bearer {region.tokens[part]}", "Idempotency-Key": new_id("key")}
    if method == "PUT":
        return region.client.put(address, content=SNAPSHOT, headers=headers)
    body = BODIES[route][1] if method == "POST" else None
    body = {**body, "person": part} if body and route == "/tokens" else body
    body = {**body, "to_award": region.award("voice")["id"]} if body and "to_award" in body else body
    return region.client.request(method, address, json=body, headers=headers)


def test_every_route_is_decided_for_every_part_in_a_project(parts: World) -> None:
    """The table names every route that engineers may call: one that is new must be decided here first."""
    for_engineers = {(o.method, o.path) for o in operations(parts) if "engineer" in o.roles}
    assert for_engineers == set(BY_PART)
    for (method, path), statuses in BY_PART.items():
        for part, status in zip(PARTS, statuses, strict=True):
            if path.endswith("/leave"):
                parts.post("marc", "/projects/vision/members", {"person": "nemo"})
            if method == "GET" and "snapshots" in path:
                ask_well(parts, part, "PUT", path, "")
            array = {"array": "0-1", "time_limit_s": 60} if "tasks" in path else {}
            job_id = parts.submit("ines", **array)["id"] if "job_id" in path else ""
            answer = ask_well(parts, part, method, path, job_id)
            assert answer.status_code == status, (method, path, part, answer.text)
            if status == 403:
                assert answer.json()["code"] == "not-allowed", (method, path, part)
            if path.endswith("/cancel"):
                seen = parts.get("ines", f"/jobs/{job_id}/tasks/0") if array else parts.job(job_id)
                assert seen["state"] == ("cancelled" if status == 200 else "held"), part
            if path.endswith("/members") and method == "POST" and status == 201:
                parts.post("marc", "/projects/vision/members/leave", {"person": "nemo"})


def test_all_other_routes_refuse_engineers_whatever_their_part(parts: World) -> None:
    others = [o for o in operations(parts) if "engineer" not in o.roles and (o.method, o.path) not in OPEN]
    assert len(others) > 10
    for operation in others:
        for part in PARTS:
            answer = ask(parts, operation, parts.tokens[part])
            assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed"), (operation.path, part)


MINE: dict[str, Callable[[Any], set[str]]] = {
    "/jobs": lambda answer: {job["project"] for job in answer["items"]},
    "/quota": lambda answer: {award["project"] for award in answer["awards"]},
    "/awards": lambda answer: {award["project"] for award in answer["items"]},
    "/projects": lambda answer: {project["name"] for project in answer["items"]},
    "/reports/gpu?from=2020-01-01&to=2099-12-31": lambda answer: {row["key"] for row in answer["rows"]},
    "/me": lambda answer: set(answer["projects"]),
}
"""Lists without a project's name, and the projects that they speak of."""


def test_lists_speak_of_ones_own_projects_only(parts: World) -> None:
    ended(parts, "ines", "vision")
    ended(parts, "paul", "voice")
    for part in PARTS:
        own = {"left": set(), "stranger": {"voice"}}.get(part, {"vision"})
        for path, projects in MINE.items():
            assert projects(parts.get(part, path)) == own, (part, path)


def ended(region: World, person: str, project: str) -> str:
    """Run a job to its settled end, with words of the engineer's wherever there may be any; return its id."""
    assert isinstance(region.scheduler, FakeScheduler)
    job_id: str = region.submit(person, project=project, name=JOB_NAME, script=SCRIPT, modules=[MODULE])["id"]
    region.step()
    region.scheduler.advance(0)
    region.step()
    region.scheduler.advance(600)
    region.scheduler.finish(job_name(job_id), AttemptState.FAILED, exit_code=42)
    region.step()
    with region.services.database.write() as session:
        session.execute(update(Job).where(col(Job.id) == job_id).values(reason=CAUSE, notices=[CAUSE]))
        session.execute(update(JobEvent).where(col(JobEvent.job_id) == job_id).values(cause=CAUSE))
    assert region.job(job_id, person)["settled_at"] is not None
    return job_id


def test_a_coach_sees_progress_and_nothing_that_engineers_wrote(parts: World) -> None:
    job_id = ended(parts, "ines", "vision")
    whole, seen = (parts.job(job_id, part) for part in ("viewer", "coach"))
    hidden = {"name": None, "reason": None, "notices": [], "exit_code": None, "snapshot": None, "script_sha256": None}
    assert (whole["name"], whole["reason"], whole["exit_code"], whole["hidden"]) == (JOB_NAME, CAUSE, 42, [])
    tools = {"named_environment": None, "modules": [], "container": None}
    assert set(seen["hidden"]) == {*hidden, *tools, "causes"}
    assert {key: seen[key] for key in tools} == tools
    differ = {key for key in whole if whole[key] != seen[key]}
    assert differ == (set(hidden) - {"snapshot"}) | {"hidden", "events", "modules"}
    assert {key: seen[key] for key in hidden} == hidden
    assert [(e["at"], e["state"], e["cause"]) for e in seen["events"]] == [
        (e["at"], e["state"], None) for e in whole["events"]
    ]
    assert seen["charged_credits"] == whole["charged_credits"] > 0
    (listed,) = parts.get("coach", "/jobs")["items"]
    assert {key: listed[key] for key in listed if key != "hidden"} == {k: seen[k] for k in listed if k != "hidden"}
    assert set(listed["hidden"]) == {"name", "reason", "notices", "exit_code"}


def test_no_answer_to_a_coach_holds_a_word_of_the_engineers(parts: World) -> None:
    job_id = ended(parts, "ines", "vision")
    words = (JOB_NAME, CAUSE, MODULE, "canary-of-the-script", sha256(SCRIPT.encode()).hexdigest())
    told = {"viewer": "", "coach": ""}
    for part in told:
        for method, path in BY_PART:
            if method == "GET" and "snapshots" not in path:
                told[part] += ask_well(parts, part, method, path, job_id).text
    assert [word in told["coach"] for word in words] == [False] * 5
    assert [word in told["viewer"] for word in words] == [True, True, True, False, True], "they can be found"

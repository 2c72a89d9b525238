"""Nobody comes in where they may not: the whole OpenAPI document, walked with every kind of token."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from httpx import Response
from requests_by_route import BODIES
from sqlmodel import select
from world import PEOPLE, SITE, World, world

from broker.auth import new_token
from broker.models import Person
from storage.tables import utcnow

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
    values = {"job_id": job_id, "name": SITE["name"], "token_id": "nothing", "digest": "0" * 64}
    values |= {"organisation": "acme", "person": person}
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
            job_id = region.submit()["id"] if "job_id" in operation.path else "job-x"
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
        answer = region.call(person, "POST", route.format(name="vision", organisation="acme", person="ines"), {**body, "tiem_limit": 1})
        assert answer.status_code == 422, route
        assert "tiem_limit" in answer.json()["detail"], route


def test_people_of_the_world_have_one_role_each() -> None:
    assert all(PEOPLE[person] == [role] for role, person in ROLES.items())

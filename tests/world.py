"""A small region for tests: people, a project with an award, and one site with a scheduler of the test's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi.testclient import TestClient
from filled import fill
from httpx import Response
from sqlmodel import select, update

from adapters.fake import FakeScheduler
from adapters.fake_upkeep import FakeUpkeep
from adapters.port import Scheduler
from broker.adopt import adopt
from broker.app import create_app
from broker.auth import new_token
from broker.bootstrap import Services, bootstrap
from broker.cancel import send_cancels
from broker.dispatch import Desk, dispatch
from broker.known import job_name
from broker.logs import configure_log
from broker.memberships import memberships
from broker.models import Person, Site
from broker.reconcile import reconcile
from broker.schemas import SiteIn
from broker.settings import Settings
from cli.units import paris_today
from quotas.award_changes import ask_supplement
from quotas.awards import Actor
from quotas.invariants import broken
from quotas.models import ReclaimNotice
from storage.tables import new_id, utcnow

HOUR = 3_600_000
PEOPLE = {
    "olga": ["operator"],
    "otto": ["operator"],
    "marc": ["manager"],
    "alma": ["auditor"],
    "ines": ["engineer"],
    "paul": ["engineer"],
    "nemo": ["engineer"],
}
"""Ines is a member of the project `vision`, Paul of `voice`, Nemo of none."""

SITE: dict[str, Any] = {
    "name": "teratec",
    "cluster": "fake",
    "host": "127.0.0.1",
    "login": "idf-broker",
    "identity_file": "/nowhere/key",
    "host_key": "ssh-ed25519 AAAA",
    "isolation": "accounts",
    "accounts": ["idf001", "idf002", "idf003"],
    "gpu_types": {"a100-80": "a100"},
    "constraints": {"a100-80g": "a100-80"},
    "gpus_per_job_max": 8,
    "kill_grace_s": 60,
}
JOB: dict[str, Any] = {"project": "vision", "script": "#!/bin/sh\necho hello\n", "gpus": 1, "time_limit_s": 3600}


@dataclass(repr=False)
class World:
    """The broker in this process; nothing runs in the background, `step` does one cycle."""

    services: Services
    scheduler: Scheduler
    upkeep: FakeUpkeep
    client: TestClient
    tokens: dict[str, str] = field(default_factory=dict)

    def call(self, person: str, method: str, path: str, body: Any = None, *, key: str | None = None) -> Response:
        headers = {"Authorization": f"Bearer {self.tokens[person]}"}
        if method == "POST":
            headers["Idempotency-Key"] = key or str(uuid4())
        return self.client.request(method, f"/v1{path}", json=body, headers=headers)

    def get(self, person: str, path: str) -> Any:
        answer = self.call(person, "GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, person: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        answer = self.call(person, "POST", path, body, key=key)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def submit(self, person: str = "ines", **changes: Any) -> Any:
        return self.post(person, "/jobs", {**JOB, **changes})

    def refused(self, person: str = "ines", **changes: Any) -> Any:
        answer = self.call(person, "POST", "/jobs", {**JOB, **changes})
        assert answer.status_code >= 400, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        return answer.json()

    def job(self, job_id: str, person: str = "ines") -> Any:
        return self.get(person, f"/jobs/{job_id}")

    def award(self, project: str = "vision") -> Any:
        return self.get("marc", f"/quota?project={project}")["awards"][0]

    def award_for(self, route: str) -> str:
        """A fresh award of `vision`, as it must stand for a route of awards: asked for, or granted."""
        if "justification" in route:
            return self.unused_award(justified=not route.endswith("/justification"))
        today = paris_today()
        days = {"start_on": str(today - timedelta(days=1)), "end_on": str(today + timedelta(days=60))}
        asked = route.endswith(("/approve", "/refuse", "/withdraw"))
        wanted = {"project": "vision", "amount_credits": HOUR, **days}
        return str(self.post("marc", "/awards/request" if asked else "/awards", wanted)["id"])

    def unused_award(self, *, justified: bool) -> str:
        """A fresh award of `vision` whose reclaim is announced; Ines justified it, and leads from now on."""
        award_id, now = self.award_for(""), utcnow()
        with self.services.database.write() as session:
            ines = session.exec(select(Person.id).where(Person.name == "ines")).one()
            session.execute(update(memberships).values(role="lead").where(memberships.c.person_id == ines))
            notice = ReclaimNotice(
                id=new_id("rcl"),
                award_id=award_id,
                after_thousandths=500,
                used_below_thousandths=300,
                take_thousandths=500,
                announced_credits=HOUR // 2,
                noticed_at=now,
                due_at=now + timedelta(days=15),
            )
            if justified:
                notice.justification, notice.justified_by, notice.justified_at = "the data comes in July", ines, now
            session.add(notice)
        return award_id

    def certification(self, **changes: Any) -> str:
        """A proof that Olga entered for a service of the site, and nobody confirmed; return its id."""
        today = paris_today()
        days = {"start_on": str(today - timedelta(days=1)), "end_on": str(today + timedelta(days=300))}
        what = {"site": SITE["name"], "service": "Bare Metal", "scheme": "hds", "version": "2", "scope": ["computing"]}
        return str(self.post("olga", "/certifications", {**what, "document": "GED 2026/44", **days, **changes})["id"])

    def change_for(self, person: str = "ines") -> str:
        """A change of a fresh award that waits for its decision."""
        award_id = self.award_for("")
        with self.services.database.write() as session:
            asker = Actor(session.exec(select(Person).where(Person.name == person)).one().id, is_manager=False)
            return ask_supplement(session, award_id, HOUR, "more data", asker, utcnow()).id

    def desks(self) -> list[Desk]:
        with self.services.database.read() as session:
            sites = session.exec(select(Site.name, Site.id, Site.settings).order_by(Site.name)).all()
        return [Desk(self.services, id_, SiteIn.model_validate(known), self.scheduler) for _, id_, known in sites]

    def desk(self, name: str = SITE["name"]) -> Desk:
        [desk] = [desk for desk in self.desks() if desk.settings.name == name]
        return desk

    def step(self, site: str = SITE["name"]) -> None:
        self._step(self.desk(site))

    def step_everywhere(self) -> None:
        for desk in self.desks():
            self._step(desk)

    def _step(self, desk: Desk) -> None:
        dispatch(desk)
        send_cancels(desk)
        adopt(desk)
        reconcile(desk)

    def charged(self, seconds: int = 600, **changes: Any) -> Any:
        """Submit a job, let it run so long and settle it; return it."""
        assert isinstance(self.scheduler, FakeScheduler)
        job_id = self.submit(**changes)["id"]
        self.step()
        self.scheduler.advance(0)
        self.scheduler.advance(seconds)
        self.scheduler.finish(job_name(job_id))
        self.step()
        return self.job(job_id)

    def faults(self) -> list[str]:
        with self.services.database.read() as session:
            return list(broken(session))

    def enter_all(self) -> None:
        self.enter_people()
        self.enter_projects()
        self.enrol_site()
        self.enter_contract()

    def enter_people(self) -> None:
        with self.services.database.write() as session:
            for name, roles in PEOPLE.items():
                person = Person(id=new_id("psn"), name=name, roles=roles, created_at=utcnow())
                session.add(person)
                session.flush()
                self.tokens[name], row = new_token(person.id, "tests", timedelta(days=1))
                session.add(row)

    def enter_projects(self, award_hours: int = 100) -> None:
        today = paris_today()
        self.post("marc", "/gpu-classes", {"name": "a100-80", "weight_thousandths": 2000, "valid_from": "2026-01-01"})
        budget = {"start_on": "2026-01-01", "end_on": "2099-12-31", "credits": 10_000 * HOUR}
        programme = {"name": "pack-ia-2026", "kind": "pack-ia", "budgets": [budget]}
        self.post("marc", "/programmes", {**programme, "default_time_limit_s": 1800})
        for organisation, project, person in (("acme", "vision", "ines"), ("echo", "voice", "paul")):
            self.post("marc", "/organisations", {"name": organisation})
            self.post("marc", "/projects", {"name": project, "organisation": organisation, "programme": "pack-ia-2026"})
            self.post("marc", f"/projects/{project}/members", {"person": person})
            self.post(
                "marc",
                "/awards",
                {
                    "project": project,
                    "amount_credits": award_hours * HOUR,
                    "start_on": str(today - timedelta(days=1)),
                    "end_on": str(today + timedelta(days=90)),
                },
            )

    def set_rule(self, **figures: Any) -> Any:
        """Give the site a charging rule from the beginning of the year on."""
        return self.post("olga", "/charging-rules", {"site": SITE["name"], "valid_from": "2026-01-01", **figures})

    def enrol_site(self, **changes: Any) -> Any:
        return self.post("olga", "/sites", {**SITE, **changes})

    def enter_contract(self, site: str = "teratec", gpu_class: str = "a100-80", hours: int = 5000, **more: Any) -> Any:
        today = paris_today()
        days = {"start_on": str(today - timedelta(days=1)), "end_on": str(today + timedelta(days=200))}
        order = {"kind": "purchased", "order_number": "BC-2026-17"}
        what = {"site": site, "gpu_class": gpu_class, "gpu_seconds": hours * 3600}
        return self.post("marc", "/contracts", {**what, **days, **order, **more})


@contextmanager
def world(
    database_url: str, folder: Path, scheduler: Scheduler | None = None, *, made_before: bool = False
) -> Iterator[World]:
    """A region with people, projects and a site, over a scheduler in memory unless another is given."""
    fresh = scheduler is None and not made_before
    tokens = fill(database_url, lambda url: _entered(url, folder / "filling")) if fresh else None
    with _opened(database_url, folder, scheduler) as made:
        if tokens is not None:
            made.tokens.update(tokens)
        elif not made_before:
            made.enter_all()
        yield made


def _entered(database_url: str, folder: Path) -> dict[str, str]:
    with _opened(database_url, folder, None) as made:
        made.enter_all()
        return made.tokens


@contextmanager
def _opened(database_url: str, folder: Path, scheduler: Scheduler | None) -> Iterator[World]:
    chosen = scheduler or FakeScheduler(now=utcnow(), gpus_total=8)
    settings = Settings(data_dir=folder, database_url=database_url, allow_loopback_sites=True)
    configure_log(settings.log_level)
    upkeep = FakeUpkeep()
    services = bootstrap(settings, make_scheduler=lambda _site: chosen, make_upkeep=lambda _site: upkeep)
    with TestClient(create_app(services), raise_server_exceptions=False) as client:
        yield World(services, chosen, upkeep, client)
    services.close()

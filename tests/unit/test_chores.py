"""Chores: each runs on its own, and one that fails or waits holds up no other."""

import threading
from datetime import timedelta
from pathlib import Path

from sqlmodel import select
from world import world

from broker.answers import forget_old_answers
from broker.chores import CHORES, Chore, Chores
from broker.models import ANSWERS_KEPT_FOR, Idempotency
from storage.tables import utcnow


def test_a_failing_chore_is_tried_again_and_a_waiting_one_holds_up_no_other(database_url: str, tmp_path: Path) -> None:
    failed_twice, others_twice, go_on = threading.Event(), threading.Event(), threading.Event()
    turns = {"fails": 0, "works": 0}

    def fails(_services: object) -> None:
        turns["fails"] += 1
        if turns["fails"] == 2:
            failed_twice.set()
        raise RuntimeError("no luck")

    def works(_services: object) -> None:
        turns["works"] += 1
        if turns["works"] == 2:
            others_twice.set()

    def waits(_services: object) -> None:
        assert go_on.wait(20)

    with world(database_url, tmp_path) as region:
        chores = Chores(
            region.services, [Chore("waits", 0.01, waits), Chore("fails", 0.01, fails), Chore("works", 0.01, works)]
        )
        chores.start()
        assert failed_twice.wait(20)
        assert others_twice.wait(20)
        go_on.set()
        chores.stop()
        before = dict(turns)
    assert turns == before


def test_old_answers_are_forgotten_by_person_or_all(database_url: str, tmp_path: Path) -> None:
    def row(person_id: str, key: str, age: timedelta) -> Idempotency:
        return Idempotency(
            person_id=person_id,
            method="POST",
            route="/x",
            key=key,
            request_sha256="0",
            status=201,
            resource="",
            created_at=utcnow() - age,
        )

    old, young = ANSWERS_KEPT_FOR + timedelta(minutes=1), ANSWERS_KEPT_FOR - timedelta(minutes=1)
    with world(database_url, tmp_path) as region:
        database = region.services.database
        with database.write() as session:
            session.add_all([row("a", "1", old), row("a", "2", young), row("b", "3", old), row("b", "4", young)])

        def left() -> set[str]:
            with database.read() as session:
                return set(session.exec(select(Idempotency.key)).all()) & {"1", "2", "3", "4"}

        with database.write() as session:
            forget_old_answers(session, "a")
        assert left() == {"2", "3", "4"}
        next(chore for chore in CHORES if chore.name == "forget-answers").act(region.services)
        assert left() == {"2", "4"}

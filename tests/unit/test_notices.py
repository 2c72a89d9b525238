"""The outbox: one letter for one event, sent at least once whoever is killed, and never lost."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from threading import Timer

import pytest
from broker_command import BrokerCommand
from clusters.mail import MailServer
from sqlmodel import col, select, update

from broker import notices
from broker.bootstrap import Services, bootstrap
from broker.letters import Letter, LetterPutOff, LetterRefused, PostAway, PostError
from broker.models import Notice, Person
from broker.notices import PAUSE_S_MAX, TRIES_MAX, send_again, send_due, tell
from broker.settings import Settings
from broker.smtp import SmtpPostman
from storage.database import Database
from storage.tables import new_id, utcnow

ROUNDS = int(os.environ.get("IDF_TORTURE_ROUNDS", "4"))


class Postbox:
    """Takes letters in memory, or raises what it is given."""

    def __init__(self) -> None:
        self.taken: list[Letter] = []
        self.trouble: PostError | None = None
        self.closed = 0

    def send(self, letter: Letter) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.taken.append(letter)

    def check(self) -> str:
        return "a box"

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def post() -> Postbox:
    return Postbox()


@pytest.fixture
def services(database_url: str, tmp_path: Path, post: Postbox) -> Iterator[Services]:
    made = bootstrap(Settings(data_dir=tmp_path, database_url=database_url))
    yield replace(made, postman=post)
    made.close()


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[MailServer]:
    server = MailServer(tmp_path / "mail", "starttls").start()
    yield server
    server.stop()


def person(database: Database, name: str) -> str:
    with database.write() as session:
        row = Person(id=new_id("psn"), name=name, roles=["engineer"], created_at=utcnow(), email=f"{name}@acme.example")
        session.add(row)
        return row.id


def write(database: Database, *events: str, to: str) -> None:
    with database.write() as session:
        for event in events:
            tell(session, event, [to], f"about {event}", "text\n")


def rows(database: Database) -> list[Notice]:
    with database.read() as session:
        return list(session.exec(select(Notice).order_by(col(Notice.key))).all())


def due_now(database: Database) -> None:
    """What a lease or a pause would do in minutes."""
    with database.write() as session:
        session.exec(update(Notice).values(next_try_at=utcnow() - timedelta(seconds=1)))


def test_one_event_makes_one_letter_to_each_and_goes_with_its_transaction(services: Services, post: Postbox) -> None:
    ines, paul = person(services.database, "ines"), person(services.database, "paul")

    def undone() -> None:
        with services.database.write() as session:
            tell(session, "undone", [ines], "s", "t")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        undone()
    for _ in range(2):
        with services.database.write() as session:
            tell(session, "award-spent/a/900", [ines, paul, ines], "90 %\nspent", "text\n")
            tell(session, "nobody", [], "s", "t")
    assert [row.key for row in rows(services.database)] == sorted(f"award-spent/a/900/{id_}" for id_ in (ines, paul))
    assert send_due(services) == 2
    assert send_due(services) == 0
    assert {letter.to for letter in post.taken} == {"ines@acme.example", "paul@acme.example"}
    assert {letter.subject for letter in post.taken} == {"90 % spent"}
    assert all(row.sent_at and row.tries == 1 and row.reason is None for row in rows(services.database))
    assert post.closed == 2


def test_while_the_server_is_away_nothing_is_given_up(services: Services, post: Postbox) -> None:
    write(services.database, "a", "b", to=person(services.database, "ines"))
    post.trouble = PostAway("connection refused")
    for _ in range(TRIES_MAX + 3):
        due_now(services.database)
        assert send_due(services) == 0
    tried, waiting = sorted(rows(services.database), key=lambda row: row.reason is None)
    assert (tried.tries, tried.reason, tried.failed_at) == (0, "connection refused", None)
    assert tried.next_try_at > utcnow()
    assert (waiting.tries, waiting.failed_at) == (0, None)
    post.trouble = None
    due_now(services.database)
    assert send_due(services) == 2


def test_a_letter_that_is_not_taken_is_tried_with_growing_pauses_then_stands_as_failed(
    services: Services, post: Postbox
) -> None:
    write(services.database, "a", to=person(services.database, "ines"))
    post.trouble = LetterPutOff("452 full")
    pauses = []
    for _ in range(TRIES_MAX):
        due_now(services.database)
        send_due(services)
        (row,) = rows(services.database)
        pauses.append(round((row.next_try_at - utcnow()).total_seconds()))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (pytest.approx(60, abs=2), pytest.approx(PAUSE_S_MAX, abs=2))
    assert (row.tries, row.reason) == (TRIES_MAX, "452 full")
    assert row.failed_at is not None
    post.trouble = None
    due_now(services.database)
    assert send_due(services) == 0, "a failed one waits for an operator"
    with services.database.write() as session:
        assert send_again(session) == 1
    assert send_due(services) == 1


def test_a_letter_that_is_refused_for_good_holds_up_no_other(services: Services, post: Postbox) -> None:
    ines = person(services.database, "ines")
    write(services.database, "a", to=ines)
    post.trouble = LetterRefused("550 no such user")
    send_due(services)
    post.trouble = None
    write(services.database, "b", to=ines)
    assert send_due(services) == 1
    refused, sent = rows(services.database)
    assert (refused.reason, refused.tries, refused.sent_at) == ("550 no such user", 1, None)
    assert refused.failed_at is not None
    assert sent.sent_at is not None
    with services.database.write() as session:
        assert send_again(session, ["ntc-other"]) == 0
        assert send_again(session, [refused.id]) == 1


def test_a_turn_ends_in_time(services: Services, post: Postbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "TURN_S_MAX", 0)
    write(services.database, "a", to=person(services.database, "ines"))
    assert send_due(services) == 0
    assert post.taken == []


def test_a_letter_under_lease_is_left_alone_and_comes_back_after_it(services: Services, post: Postbox) -> None:
    write(services.database, "a", to=person(services.database, "ines"))
    post.trouble = KeyError("the worker dies here")  # type: ignore[assignment]
    with pytest.raises(KeyError):
        send_due(services)
    post.trouble = None
    assert send_due(services) == 0
    due_now(services.database)
    assert send_due(services) == 1


def test_any_number_of_workers_send_each_letter_once(services: Services, mail: MailServer) -> None:
    ines = person(services.database, "ines")
    write(services.database, *(f"event/{number}" for number in range(30)), to=ines)
    settings = services.settings.model_copy(update=mail.settings)
    with ThreadPoolExecutor(4) as pool:
        sent = list(pool.map(lambda _: send_due(replace(services, postman=SmtpPostman(settings))), range(4)))
    assert sum(sent) <= 30
    for _ in range(20):  # a busy machine may have broken off a connection: such a letter is tried again
        due_now(services.database)
        send_due(replace(services, postman=SmtpPostman(settings)))
    assert len({str(letter["Message-ID"]) for letter in mail.letters}) == 30
    assert len(mail.letters) == 30
    assert all(row.sent_at for row in rows(services.database))


def test_real_refusals_and_a_server_that_comes_back(services: Services, mail: MailServer) -> None:
    mail.answers["gone@acme.example"] = "550 no such user"
    settings = services.settings.model_copy(update=mail.settings)
    over_smtp = replace(services, postman=SmtpPostman(settings))
    mail.stop()
    write(services.database, "a", to=person(services.database, "ines"))
    write(services.database, "b", to=person(services.database, "gone"))
    assert send_due(over_smtp) == 0
    mail.start()
    due_now(services.database)
    assert send_due(over_smtp) == 1
    sent, refused = rows(services.database)
    assert sent.sent_at is not None
    assert refused.reason == "it answered 550 no such user"


@dataclass
class Killer:
    """Kills a worker when the server has taken so many letters: at once, before it has answered, or soon after."""

    worker: "subprocess.Popen[bytes]"
    letters: int
    after_s: float

    def __call__(self, _letter: EmailMessage) -> None:
        self.letters -= 1
        if self.letters == 0 and self.after_s:
            Timer(self.after_s, self.worker.kill).start()
        elif self.letters == 0:
            self.worker.kill()
            self.worker.wait()


@pytest.mark.torture
def test_a_worker_killed_around_the_sending_loses_no_letter(
    services: Services, mail: MailServer, database_url: str, tmp_path: Path
) -> None:
    """Real workers are killed just before or just after the server has taken a letter, before or after the mark."""
    chance = random.Random(f"{database_url[:6]}{ROUNDS}")
    ines = person(services.database, "ines")
    write(services.database, *(f"event/{number}" for number in range(12 * ROUNDS)), to=ines)
    settings = {**mail.settings, "database_url": database_url, "data_dir": tmp_path}
    environment = {f"IDF_BROKER_{name}".upper(): str(value) for name, value in settings.items()}
    command = [sys.executable, "-c", "from broker.admin import main; main()", "worker"]
    for _ in range(ROUNDS):
        due_now(services.database)
        worker = subprocess.Popen(command, env={**os.environ, **environment})
        mail.on_letter = Killer(worker, chance.randrange(1, 4), chance.choice((0, 0, 0.005, 0.02)))
        try:
            assert worker.wait(60) == -signal.SIGKILL
        finally:
            worker.kill()
    mail.on_letter = lambda _: None
    due_now(services.database)
    send_due(replace(services, postman=SmtpPostman(services.settings.model_copy(update=mail.settings))))
    came = Counter(str(letter["Message-ID"]) for letter in mail.letters)
    told = {row.key: row for row in rows(services.database)}
    wanted = {Letter(key, None, "", "", "", utcnow()).message_id("region.example") for key in told}
    assert set(came) == wanted
    assert all(row.sent_at and not row.failed_at for row in told.values())
    assert len(mail.letters) <= len(told) + ROUNDS, "at most one letter came twice for each that was killed"


def test_operators_see_what_was_told_and_what_failed(
    services: Services, post: Postbox, broker_command: BrokerCommand, database_url: str
) -> None:
    write(services.database, "a", to=person(services.database, "ines"))
    send_due(services)
    write(services.database, "b", to=person(services.database, "paul"))
    post.trouble = LetterRefused("550 no\x1b user")
    send_due(services)
    said = broker_command("notices", DATABASE_URL=database_url)
    assert said.code == 0
    failed, sent = said.out.splitlines()
    assert "sent     ines: about a" in sent
    assert failed.endswith("failed   paul: about b (1 tries: 550 no user)")
    said = broker_command("notices", "--failed", "--json", DATABASE_URL=database_url)
    assert said.out.count("\n") == 1
    assert '"addressee": "paul"' in said.out
    assert broker_command("notices", "--again", DATABASE_URL=database_url).out == "1 notices are due again\n"
    assert broker_command("notices", "--failed", DATABASE_URL=database_url).out == ""


def test_doctor_says_whether_mail_can_be_sent(
    mail: MailServer, broker_command: BrokerCommand, database_url: str, database: Database
) -> None:
    settings = {name.upper(): str(value) for name, value in mail.settings.items()}
    done = broker_command("doctor", DATABASE_URL=database_url, **settings)
    assert (done.code, f"✓ notices go to 127.0.0.1:{mail.port} by starttls as broker" in done.out) == (0, True)
    assert "log only" in broker_command("doctor", DATABASE_URL=database_url).out
    done = broker_command("doctor", DATABASE_URL=database_url, **{**settings, "SMTP_PORT": "1"})
    assert (done.code, "✗ no notice can be sent: the mail server 127.0.0.1:1: " in done.out) == (1, True)
    assert mail.letters == []

"""`idf-compute-broker`: the service's own commands, for whoever runs it."""

import json
import signal
import sys
import threading
from datetime import timedelta
from importlib.metadata import packages_distributions
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from broker import audit_commands
from broker.checkpoints import CheckpointWrong
from broker.logs import configure_log
from broker.schema_version import SchemaNotCurrent, check_current, migrate_to
from broker.settings import Settings, SettingsWrong, read_settings
from storage.database import Database, DatabaseUnavailable

if TYPE_CHECKING:
    from broker.models import Notice

app = typer.Typer(
    help="The broker's service. Settings: a TOML file named by IDF_BROKER_CONFIG, and IDF_BROKER_* variables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(audit_commands.app)
STOP_S_MAX = 20
"""How long a stop waits for answers under way: an audit may take minutes, and what is cut off is as after a kill."""
OUR_FOLDERS = ("broker", "quotas", "adapters", "storage", "accounting", "cli")


@app.command(epilog="Example: IDF_BROKER_PORT=8470 idf-compute-broker serve")
def serve() -> None:
    """Answer requests, and send and watch jobs unless `embedded_worker` is off."""
    import uvicorn

    from broker.app import create_app
    from broker.bootstrap import bootstrap
    from broker.worker import Worker

    settings = read_settings()
    configure_log(settings.log_level)
    check_current(settings.full_database_url())
    services = bootstrap(settings)
    worker = Worker(services) if settings.embedded_worker else None
    if worker is not None:
        worker.start()
    try:
        uvicorn.run(
            create_app(services),
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_S_MAX,
        )
    finally:
        if worker is not None:
            worker.stop()
        services.close()


@app.command(epilog="Example: idf-compute-broker worker")
def worker() -> None:
    """Send and watch jobs, apart from the service; any number on PostgreSQL."""
    from broker.bootstrap import bootstrap
    from broker.worker import Worker

    settings = read_settings()
    configure_log(settings.log_level)
    check_current(settings.full_database_url())
    services = bootstrap(settings)
    running = Worker(services)
    running.start()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    running.stop()
    services.close()


@app.command(epilog="Example: idf-compute-broker migrate")
def migrate(
    revision: Annotated[str, typer.Option(help="Where to stop: head, base, or a revision's id.")] = "head",
) -> None:
    """Bring the database's tables to a revision, up or down."""
    settings = read_settings()
    typer.echo(migrate_to(settings.full_database_url(), revision))


@app.command(epilog="Example: idf-compute-broker token ines --role operator --file ~/ines.token")
def token(
    person: Annotated[str, typer.Argument(help="The person's name; entered if new.")],
    file: Annotated[Path, typer.Option(help="Where the token is written, mode 0600; it is shown nowhere.")],
    role: Annotated[list[str] | None, typer.Option(help="Roles of a new person.")] = None,
    days: Annotated[int, typer.Option(help="How long it is valid.")] = 365,
) -> None:
    """Issue a token from the machine itself: how the first operator comes in."""
    from sqlmodel import col, select

    from broker.auth import new_token
    from broker.models import Person
    from broker.schemas import PersonIn
    from storage.tables import new_id, utcnow

    settings = read_settings()
    wanted = PersonIn.model_validate({"name": person, "roles": role or ["engineer"]})
    check_current(settings.full_database_url())
    database = Database(settings.full_database_url())
    with database.write() as session:
        known = session.exec(select(Person).where(col(Person.name) == person)).one_or_none()
        if known is None:
            known = Person(id=new_id("psn"), created_at=utcnow(), **wanted.model_dump())
            session.add(known)
            session.flush()
        text, row = new_token(known.id, "issued on the machine", timedelta(days=days))
        session.add(row)
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(text + "\n")
    typer.echo(f"{person} ({', '.join(known.roles)}): token {row.id} written to {file}")


@app.command(epilog="Example: idf-compute-broker doctor")
def doctor() -> None:
    """Look for what is wrong with this installation; exit status 1 if anything is."""
    settings = read_settings()
    wrong, notes = _database_problems(settings)
    post, post_problems = _post(settings)
    problems = [*_clashes(), *wrong, *post_problems]
    for problem in problems:
        typer.echo(f"✗ {problem}")
    for note in notes:
        typer.echo(f"! {note}")
    if problems:
        raise typer.Exit(1)
    typer.echo(f"✓ settings, database and ledger are in order ({settings.data_dir})")
    typer.echo(f"✓ {post}")


@app.command(epilog="Example: idf-compute-broker notices --failed")
def notices(
    failed: Annotated[bool, typer.Option("--failed", help="Those that could not be sent, and why.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Send those that failed once more.")] = False,
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the newest first.")] = 50,
    in_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """List what people were told by mail, or are to be told yet."""
    from broker.notices import newest, send_again

    settings = read_settings()
    check_current(settings.full_database_url())
    database = Database(settings.full_database_url())
    if again:
        with database.write() as session:
            typer.echo(f"{send_again(session)} notices are due again")
        return
    with database.read() as session:
        for notice, name in newest(session, failed=failed, count_max=last):
            typer.echo(_notice_line(notice, name, in_json=in_json))


def _notice_line(notice: "Notice", name: str, *, in_json: bool) -> str:
    from broker.letters import one_line

    if in_json:
        return json.dumps({**notice.model_dump(mode="json"), "addressee": name})
    state = "failed" if notice.failed_at else "sent" if notice.sent_at else "waiting"
    why = f" ({notice.tries} tries: {one_line(notice.reason)})" if notice.reason else ""
    return f"{notice.created_at:%Y-%m-%d %H:%M} UTC  {state:7}  {one_line(name)}: {one_line(notice.subject)}{why}"


def _clashes() -> list[str]:
    owners = packages_distributions()
    return [
        f"the package {name} belongs to several distributions: {', '.join(sorted(set(owners[name])))}; "
        "install idf-compute isolated"
        for name in OUR_FOLDERS
        if len(set(owners.get(name, []))) > 1
    ]


def _post(settings: Settings) -> tuple[str, list[str]]:
    """Say where notices go, having gone there up to the login, and what is wrong with it."""
    from broker.bootstrap import postman_of
    from broker.letters import PostAway

    try:
        return postman_of(settings).check(), []
    except PostAway as away:
        return "", [f"no notice can be sent: {away}"]


def _database_problems(settings: Settings) -> tuple[list[str], list[str]]:
    """Return what is wrong with the database, and what is merely worth knowing."""
    from broker.checkpoint_rounds import problems
    from broker.organisations import without_identifier, wrong_identifiers
    from quotas.audit import Audit

    try:
        check_current(settings.full_database_url())
    except SchemaNotCurrent as error:
        return [str(error)], []
    database = Database(settings.full_database_url())
    with database.snapshot() as connection:
        faults = list(islice(Audit(connection).faults(), audit_commands.FAULTS_MAX))
    wrong, notes = problems(settings, database)
    with database.read() as session:
        wrong += wrong_identifiers(session)
        if missing := without_identifier(session):
            names = ", ".join(missing[:10]) + (" …" if len(missing) > 10 else "")
            notes.append(f"organisations without an identifier yet (`idf-compute org set`): {len(missing)}, {names}")
    return [*faults, *wrong], notes


def main() -> None:
    """Run a command; what goes wrong is one sentence."""
    try:
        app()
    except (CheckpointWrong, DatabaseUnavailable, SchemaNotCurrent, SettingsWrong) as error:
        sys.exit(f"idf-compute-broker: {error}")
    except ValidationError as error:
        sentences = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        what = "settings" if error.title == Settings.__name__ else "person"
        sys.exit(f"idf-compute-broker: {what}: {sentences}")

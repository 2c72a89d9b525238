"""The two sides of the bench `accept`, each started as a process: `ours` and `bare`."""

import sys
from pathlib import Path

import uvicorn


def ours(folder: Path) -> object:
    """Our own application, without a worker, over a scheduler that is never asked."""
    from fastapi.testclient import TestClient
    from world import World

    from adapters.fake import FakeScheduler
    from adapters.fake_upkeep import FakeUpkeep
    from broker.app import create_app
    from broker.bootstrap import bootstrap
    from broker.logs import configure_log
    from broker.schema_version import migrate_to
    from broker.settings import Settings

    configure_log("warning")
    url = f"sqlite:///{folder / 'ours.sqlite3'}"
    migrate_to(url)
    settings = Settings(data_dir=folder, database_url=url, allow_loopback_sites=True)
    services = bootstrap(settings, make_scheduler=lambda _site: FakeScheduler(), make_upkeep=lambda _site: FakeUpkeep())
    app = create_app(services)
    made = World(services, FakeScheduler(), TestClient(app))
    made.enter_people()
    made.enter_projects(award_hours=4000)
    made.enrol_site()
    made.enter_contract(hours=100_000)
    print(made.tokens["ines"], flush=True)
    return app


def bare(folder: Path) -> object:
    """What anybody would write first: validate the body, commit one object."""
    from fastapi import FastAPI
    from sqlalchemy import event
    from sqlmodel import Field, Session, SQLModel, create_engine

    from broker.schemas import JobIn

    class BareJob(SQLModel, table=True):
        id: int | None = Field(default=None, primary_key=True)
        project: str
        script: str
        gpus: int
        time_limit_s: int

    engine = create_engine(f"sqlite:///{folder / 'bare.sqlite3'}", connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _prepare(connection, _record):  # type: ignore[no-untyped-def]
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    SQLModel.metadata.tables["barejob"].create(engine)
    app = FastAPI()

    @app.post("/v1/jobs", status_code=201)
    def submit(body: JobIn) -> dict[str, int | None]:
        with Session(engine) as session:
            job = BareJob(
                project=body.project or "",
                script=body.script or "",
                gpus=body.gpus,
                time_limit_s=body.time_limit_s or 0,
            )
            session.add(job)
            session.commit()
            session.refresh(job)
            return {"id": job.id}

    print("-", flush=True)
    return app


if __name__ == "__main__":
    which, folder, port = sys.argv[1:]
    app = {"ours": ours, "bare": bare}[which](Path(folder))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error", access_log=False)  # type: ignore[arg-type]

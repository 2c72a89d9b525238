"""`idf-compute-broker audit` over 10 million transfers on PostgreSQL: seconds and MB at their peak.

IDF_BENCH_TRANSFERS sets another number of transfers, for a quick try; the bars stay.
"""

import json
import os
import subprocess
import sys
import time

import psycopg
from clusters.postgres import PostgresServer
from harness import Figure, at_most, progress
from long_books import write_books

from broker.schema_version import migrate_to
from storage.database import Database

TRANSFERS = 10_000_000
SECONDS_MAX, MB_MAX = 60, 500
ROUNDS = 3
COMMAND = "from broker.admin import main; main()"


def measure() -> list[Figure]:
    """Write the books once, audit them some times, and check that a change is found in them."""
    transfers = int(os.environ.get("IDF_BENCH_TRANSFERS", TRANSFERS))
    server = PostgresServer.start()
    try:
        migrate_to(server.url)
        database = Database(server.url)
        with psycopg.connect(server.url.replace("+psycopg", "")) as connection:
            began = time.monotonic()
            write_books(database, connection, transfers)
            progress(f"{transfers} transfers written in {time.monotonic() - began:.0f} s")
            rounds = [_audited(server.url, transfers) for _ in range(ROUNDS)]
            _is_found(connection, server.url, transfers // 2)
        database.close()
    finally:
        server.stop()
    return [
        at_most("audit_seconds", "s", [seconds for seconds, _ in rounds], SECONDS_MAX),
        at_most("audit_peak_mb", "MB", [megabytes for _, megabytes in rounds], MB_MAX),
    ]


def _audited(url: str, transfers: int) -> tuple[float, float]:
    """Run the command as a shell would, start included; return its seconds and its peak of memory."""
    began = time.monotonic()
    output, status, megabytes = _run(url)
    seconds = time.monotonic() - began
    found = json.loads(output)
    assert (status, found["transfers"]) == (0, transfers), found
    progress(f"audit: {seconds:.1f} s, {megabytes:.0f} MB, load {os.getloadavg()[0]:.1f}")
    return seconds, megabytes


def _is_found(connection: psycopg.Connection, url: str, sequence: int) -> None:
    connection.execute("UPDATE ledger_transfer SET amount = amount + 1 WHERE sequence = %s", (sequence,))
    connection.commit()
    output, status, _ = _run(url)
    assert status == 1, output
    assert json.loads(output)["faults"][0].startswith(f"transfer {sequence}: its hash"), output


def _run(url: str) -> tuple[str, int, float]:
    environment = {**os.environ, "IDF_BROKER_DATABASE_URL": url}
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "audit", "--json"], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    output = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return output, process.returncode, usage.ru_maxrss / 1024

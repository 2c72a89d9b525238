"""A pool of two accounts and three projects, at the shell: one waits, another ends, its account is wiped and given."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from clusters.people import Shell
from clusters.region import PROGRAMME, Region
from clusters.slurm.cluster import SlurmCluster

from cli.exits import Exit
from cli.units import paris_today

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
TURN_S = 200
"""The chore that takes accounts back runs once a minute."""
LEAVE = ("--worked", "yes", "--in-production", "no", "--jobs-created", "unknown", "--benefit", "x", "--next-step", "y")


@pytest.fixture
def region(slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    if slurm_cluster.isolation == "shared":
        pytest.skip(f"this cluster has one account for all: {slurm_cluster.reason}")
    with Region.running(tmp_path_factory.mktemp("pool"), slurm_cluster) as made:
        yield made


def until(what: Callable[[], Any], limit_s: float = 60) -> Any:
    end = time.monotonic() + limit_s
    while not (answer := what()):
        assert time.monotonic() < end, f"not within {limit_s} s"
        time.sleep(0.5)
    return answer


def narrow(region: Region) -> tuple[str, str]:
    """Leave two accounts in the site's pool, as an operator would."""
    kept = region.cluster.pool[:2]
    file = region.write_site()
    named = ", ".join(f'"{account}"' for account in kept)
    file.write_text(re.sub(r"accounts = \[.*\]", f"accounts = [{named}]", file.read_text()))
    done = Shell(region, "olga").type("site", "set", str(file), timeout_s=200)
    assert done.returncode == Exit.OK, done.stdout + done.stderr
    assert "proven on" in done.stdout
    return kept


def third_project(region: Region) -> None:
    marc = Shell(region, "marc")
    days = ("--from", str(paris_today() - timedelta(days=1)), "--to", str(paris_today() + timedelta(days=30)))
    for words in (
        ("project", "add", "third", "--org", "acme", "--programme", PROGRAMME, "--confidentiality", "public"),
        ("project", "join", "third", "paul"),
        ("award", "grant", "third", "10h", *days),
    ):
        done = marc.type(*words)
        assert done.returncode == Exit.OK, done.stderr


def job(shell: Shell, job_id: str, state: str, limit_s: float = 60) -> Any:
    return until(lambda: (found := shell.json("show", job_id))["state"] == state and found, limit_s)


def test_a_project_waits_for_the_account_of_one_that_ends(region: Region) -> None:
    first, second = narrow(region)
    third_project(region)
    olga, marc, ines, paul = (Shell(region, person) for person in ("olga", "marc", "ines", "paul"))
    words = ("--gpus", "1", "--time", "2m")
    left = ines.submit(*words, "--project", "vision", "--", "sh", "-c", "echo secret > ~/left; sleep 3")
    job(ines, left, "succeeded")
    job(paul, paul.submit(*words, "--project", "voice", "--", "true"), "succeeded")
    waiting = paul.submit(*words, "--project", "third", "--", "sh", "-c", "ls -A ~ | grep -vx .idf; id -un; exit 0")
    reason = until(lambda: paul.json("show", waiting)["reason"])
    assert reason.startswith(f"waits: no account of site {region.cluster.name} is free")
    states = {
        row["account"]: (row["project"], row["state"]) for row in olga.json("site", "accounts", region.cluster.name)
    }
    assert states == {first: ("vision", "open"), second: ("voice", "open")}

    [award] = [one["id"] for one in marc.json("award", "list") if one["project"] == "vision"]
    closed = marc.type("award", "close", award, *LEAVE)
    assert closed.returncode == Exit.OK, closed.stderr
    job(paul, waiting, "succeeded", TURN_S)
    log = paul.type("logs", waiting).stdout
    assert log == f"{first}\n", "it runs as the account that was given back, and finds nothing there"
    assert region.cluster.run(["cat", f"/srv/home/{first}/left"]).returncode != 0
    states = {row["account"]: row["project"] for row in olga.json("site", "accounts", region.cluster.name)}
    assert states == {first: "third", second: "voice"}
    assert ines.json("show", left)["charged_credits"] > 0

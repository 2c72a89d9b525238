"""A region over a Slurm cluster and a Kubernetes pool: one job model, one placement, one report."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from clusters.kubernetes.region import PoolRegion
from clusters.people import Shell
from clusters.region import GPU_CLASS, Region

from cli.units import paris_today

if TYPE_CHECKING:
    from clusters.kubernetes.pool import KubernetesPool
    from clusters.slurm.cluster import SlurmCluster

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]
SLURM = "teratec"
RUN = ("--", "sh", "-c", "echo ran; sleep 2")
JOB = ("--project", "vision", "--gpus", "1", "--time", "10")


@pytest.fixture(scope="module")
def region(
    real_node: "KubernetesPool", slurm_cluster: "SlurmCluster", tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PoolRegion]:
    """Both are enrolled, and the Region has bought hours at both."""
    made = PoolRegion.make(tmp_path_factory.mktemp("both"), real_node)
    made.start()
    try:
        made.enrol()
        file = Region(made.folder, slurm_cluster, made.port).write_site()
        file.write_text(file.read_text().replace(f'name = "{slurm_cluster.name}"', f'name = "{SLURM}"', 1))
        made.cli("olga", "site", "enrol", str(file))
        today = paris_today()
        days = ("--from", str(today), "--to", str(today + timedelta(days=90)))
        bought = ("--order", "BC-2026-18", "--price", "9000", "--price-with-tax", "10800")
        made.cli("marc", "contract", "add", SLURM, GPU_CLASS, "50000h", *days, *bought)
        yield made
    finally:
        made.stop()
    assert "in order" in made.admin("doctor")
    assert "step-fault" not in (made.folder / "broker.log").read_text()


def ended(shell: Shell, job_id: str) -> Any:
    until = time.monotonic() + 120
    while (job := shell.json("show", job_id))["settled_at"] is None:
        assert time.monotonic() < until, job
        time.sleep(0.5)
    return job


def test_a_dry_run_weighs_both_kinds_and_says_what_each_cannot_do(region: PoolRegion) -> None:
    ines, pool = Shell(region, "ines"), region.cluster.name
    choices = {row["site"]: row for row in ines.json("submit", "--dry-run", *JOB, *RUN)["sites"]}
    assert {name: row["kind"] for name, row in choices.items()} == {pool: "k8s", SLURM: "slurm"}
    assert sum(row["chosen"] for row in choices.values()) == 1
    assert all(
        row["code"] is None and (row["expected_start_at"] or row["expected_start_unknown"]) for row in choices.values()
    ), choices

    signalled = ines.json("submit", "--dry-run", *JOB, "--signal", "TERM@60", *RUN)["sites"]
    assert {row["site"]: row["chosen"] for row in signalled} == {pool: False, SLURM: True}
    refused = next(row for row in signalled if row["site"] == pool)
    assert refused["code"] == "placement-refused", refused
    assert "sends no signal" in refused["detail"], refused


def test_the_same_job_runs_at_both_and_one_report_shows_it(region: PoolRegion) -> None:
    ines, sites = Shell(region, "ines"), (region.cluster.name, SLURM)
    ids = [ines.submit(*JOB, "--site", site, *RUN) for site in sites]
    done = [ended(ines, id_) for id_ in ids]
    assert [job["state"] for job in done] == ["succeeded", "succeeded"]
    assert [ines.type("logs", id_).stdout for id_ in ids] == ["ran\n", "ran\n"]
    rows = Shell(region, "marc").json("report", "gpu", "--by", "site")["rows"]
    charged = {row["key"]: row["charged_credits"] for row in rows}
    assert charged == {site: job["charged_credits"] for site, job in zip(sites, done, strict=True)}

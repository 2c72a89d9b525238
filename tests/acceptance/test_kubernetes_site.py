"""A pool as a site, from the command line to the charge, and to the site letting go of what is booked."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from clusters.kubernetes.region import PoolRegion
from clusters.people import Shell

from adapters.k8s.manifests import FINALIZER
from cli.exits import Exit

if TYPE_CHECKING:
    from clusters.kubernetes.pool import KubernetesPool

pytestmark = pytest.mark.kubernetes
WEIGHT = 2000


@pytest.fixture(scope="module")
def region(real_node: "KubernetesPool", tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolRegion]:
    made = PoolRegion.make(tmp_path_factory.mktemp("pool"), real_node)
    made.start()
    made.enrol()
    yield made
    made.stop()
    assert "in order" in made.admin("doctor")
    assert "step-fault" not in (made.folder / "broker.log").read_text()


def settled(shell: Shell, job_id: str) -> Any:
    until = time.monotonic() + 60
    while (job := shell.json("show", job_id))["settled_at"] is None:
        assert time.monotonic() < until, job
        time.sleep(0.2)
    return job


def pods_of(region: PoolRegion, job_id: str) -> list[Any]:
    core = region.cluster.core()
    found: list[Any] = core.list_pod_for_all_namespaces(label_selector=f"idf-compute/job=idf-{job_id}").items
    return found


def test_a_job_is_sent_followed_observed_and_charged(region: PoolRegion, tmp_path: Path) -> None:
    ines = Shell(region, "ines")
    (tmp_path / "data.txt").write_text("snapshot\n")
    words = ("--gpus", "2", "--time", "5m", "--dir", str(tmp_path), "--env", "WORD=déjà $(HOME)")
    done = ines.type("submit", "--follow", *words, "--", "sh", "-c", 'cat data.txt; echo "$WORD"; sleep 2; exit 7')
    assert done.returncode == Exit.JOB_FAILED, done.stderr
    assert done.stdout.splitlines()[:2] == ["snapshot", "déjà $(HOME)"]
    job = settled(ines, ines.json("jobs", "--limit", "1")[0]["id"])
    assert (job["state"], job["exit_code"]) == ("failed", 7)
    assert "- Scheduled: Successfully assigned" in ines.type("show", job["id"]).stdout
    (pod,) = pods_of(region, job["id"])
    ended = pod.status.container_statuses[0].state.terminated.finished_at
    assert job["charged_credits"] == 2 * int((ended - pod.status.start_time).total_seconds()) * WEIGHT > 0


def test_the_site_lets_go_of_what_is_booked(region: PoolRegion) -> None:
    ines = Shell(region, "ines")
    done = ines.type("submit", "--gpus", "1", "--time", "5m", "--json", "--", "true")
    assert done.returncode == Exit.OK, done.stderr
    job = settled(ines, ines.json("jobs", "--limit", "1")[0]["id"])
    until = time.monotonic() + 30
    while any(FINALIZER in (pod.metadata.finalizers or ()) for pod in pods_of(region, job["id"])):
        assert time.monotonic() < until
        time.sleep(0.3)


def test_a_broker_that_died_before_that_picks_up(region: PoolRegion) -> None:
    ines = Shell(region, "ines")
    ines.type("submit", "--gpus", "1", "--time", "5m", "--", "sleep", "3")
    job_id = ines.json("jobs", "--limit", "1")[0]["id"]
    while ines.json("show", job_id)["state"] in ("held", "dispatching"):
        time.sleep(0.1)
    region.kill()
    time.sleep(5)
    region.start()
    job = settled(ines, job_id)
    assert job["state"] == "succeeded"
    assert 3 <= job["charged_credits"] / WEIGHT <= 6


def test_a_job_is_cancelled(region: PoolRegion) -> None:
    ines = Shell(region, "ines")
    ines.type("submit", "--gpus", "1", "--time", "5m", "--", "sleep", "200")
    job_id = ines.json("jobs", "--limit", "1")[0]["id"]
    while ines.json("show", job_id)["state"] != "running":
        time.sleep(0.2)
    assert ines.type("cancel", job_id).returncode == Exit.OK
    assert settled(ines, job_id)["state"] == "cancelled"


def test_each_project_has_a_namespace_that_leads_back_to_it(region: PoolRegion) -> None:
    ines = Shell(region, "ines")
    ines.type("submit", "--gpus", "1", "--time", "5m", "--", "true")
    job = settled(ines, ines.json("jobs", "--limit", "1")[0]["id"])
    (pod,) = pods_of(region, job["id"])
    assert pod.metadata.namespace.startswith("idf-prj-")
    labels = {name: pod.metadata.labels[f"idf-compute/{name}"] for name in ("job", "project", "award")}
    assert labels == {"job": f"idf-{job['id']}", "project": pod.metadata.namespace[4:], "award": job["award"]}


def test_what_everybody_may_know_of_it(region: PoolRegion) -> None:
    site = Shell(region, "ines").json("site", "list")[0]
    assert (site["kind"], site["problems"], site["free_accounts"]) == ("k8s", [], None)
    assert "kubernetes" not in site


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (('kind = "k8s"', 'kind = "slurm"'), "host"),
        (('kind = "k8s"', 'kind = "k8s"\nhost = "192.0.2.1"'), "Slurm"),
        (('= "a100"', '= "h100"'), "kubernetes.nodes"),
        (("@sha256:", ":"), "image"),
        (("[kubernetes]", '[kubernetes]\negress = ["169.254.169.254/32"]'), "metadata"),
        (('isolation = "accounts"', 'isolation = "shared"'), "isolation"),
    ],
)
def test_an_enrolment_that_cannot_be_is_refused(
    region: PoolRegion, tmp_path: Path, changed: tuple[str, str], said: str
) -> None:
    file = tmp_path / "other.toml"
    text = (region.folder / "pool.toml").read_text().replace('name = "', 'name = "other-', 1)
    file.write_text(text.replace(*changed))
    done = Shell(region, "olga").type("site", "enrol", str(file))
    assert done.returncode in (Exit.USAGE, Exit.REFUSED), done.stdout
    assert said in done.stderr


def test_its_settings_are_changed_while_projects_have_namespaces_there(region: PoolRegion, tmp_path: Path) -> None:
    olga = Shell(region, "olga")
    file = tmp_path / "changed.toml"
    text = (region.folder / "pool.toml").read_text()
    file.write_text(text.replace("gpus_per_job_max = 8", "gpus_per_job_max = 4"))
    assert olga.type("site", "set", str(file)).returncode == Exit.OK
    assert olga.json("site", "list")[0]["gpus_per_job_max"] == 4
    file.write_text(text.replace('kind = "k8s"', 'kind = "slurm"'))
    assert olga.type("site", "set", str(file)).returncode != Exit.OK

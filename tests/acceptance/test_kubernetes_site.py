"""A pool as a site, from the command line to the charge, and to the site letting go of what is booked."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from clusters.kubernetes.region import PoolRegion
from clusters.people import Shell
from sqlmodel import col, update

from adapters.k8s.manifests import FINALIZER
from broker.bootstrap import bootstrap
from broker.leaving import take_back_all
from broker.settings import Settings
from cli.exits import Exit
from quotas.award_life import AwardState
from quotas.models import Award

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


def let_go_of(region: PoolRegion, job_id: str) -> None:
    """Wait until the broker's finalizer holds nothing of a job any more."""
    until = time.monotonic() + 30
    while any(FINALIZER in (pod.metadata.finalizers or ()) for pod in pods_of(region, job_id)):
        assert time.monotonic() < until
        time.sleep(0.3)


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
    let_go_of(region, settled(ines, ines.json("jobs", "--limit", "1")[0]["id"])["id"])


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


def test_why_a_job_waits_stands_in_show(region: PoolRegion) -> None:
    ines = Shell(region, "ines")
    for _ in range(2):
        ines.type("submit", "--gpus", "8", "--time", "5m", "--", "sleep", "100")
    second, first = (job["id"] for job in ines.json("jobs", "--limit", "2"))
    until = time.monotonic() + 60
    while "Insufficient nvidia.com/gpu" not in (shown := ines.type("show", second).stdout):
        assert time.monotonic() < until, shown
        time.sleep(0.3)
    assert ines.type("cancel", first, second).returncode == Exit.OK
    assert {settled(ines, id_)["state"] for id_ in (first, second)} == {"cancelled"}


def test_a_namespace_goes_with_the_last_award_of_its_project(region: PoolRegion) -> None:
    paul, core = Shell(region, "paul"), region.cluster.core()
    paul.type("submit", "--gpus", "1", "--time", "5m", "--", "true")
    job = settled(paul, paul.json("jobs", "--limit", "1")[0]["id"])
    (pod,) = pods_of(region, job["id"])
    space = pod.metadata.namespace
    let_go_of(region, job["id"])
    region.stop()
    services = bootstrap(Settings(data_dir=region.folder / "broker", allow_loopback_sites=True))
    theirs = update(Award).where(col(Award.id) == job["award"])
    try:
        assert take_back_all(services) == 0, "its award still runs"
        with services.database.write() as session:
            session.execute(theirs.values(state=AwardState.CLOSED.value, final_credits=0))
        assert take_back_all(services) == 1
        assert space not in {each.metadata.name for each in core.list_namespace().items}
    finally:
        with services.database.write() as session:
            session.execute(theirs.values(state=AwardState.ACTIVE.value, final_credits=None))
        services.close()
        region.start()
    paul.type("submit", "--gpus", "1", "--time", "5m", "--", "true")
    again = settled(paul, paul.json("jobs", "--limit", "1")[0]["id"])
    assert (again["state"], pods_of(region, again["id"])[0].metadata.namespace) == ("succeeded", space)


def test_a_site_doctor_looks_at_the_pool(region: PoolRegion) -> None:
    olga, core = Shell(region, "olga"), region.cluster.core()
    done = olga.type("site", "doctor", region.cluster.name)
    assert done.returncode == Exit.OK, done.stderr
    assert f"kubernetes {region.cluster.version.lstrip('v')}" in done.stdout
    label = {"nvidia.com/gpu.replicas": "4"}
    core.patch_node(region.cluster.node, {"metadata": {"labels": label}})
    try:
        found = olga.type("site", "doctor", region.cluster.name)
        assert found.returncode == Exit.REFUSED
        assert "share a GPU by time slicing" in found.stderr
    finally:
        core.patch_node(region.cluster.node, {"metadata": {"labels": dict.fromkeys(label)}})
    assert olga.type("site", "doctor", region.cluster.name).returncode == Exit.OK


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
    file.write_text(text)
    assert olga.type("site", "set", str(file)).returncode == Exit.OK


def test_a_dry_run_weighs_every_site(region: PoolRegion, tmp_path: Path) -> None:
    """The last test here: a second site stays, and later jobs would have a choice."""
    text = (region.folder / "pool.toml").read_text()
    small = (tmp_path / "small.toml").resolve()
    name = region.cluster.name
    small.write_text(text.replace(f'"{name}"', '"small"').replace("gpus_per_job_max = 8", "gpus_per_job_max = 1"))
    assert Shell(region, "olga").type("site", "enrol", str(small)).returncode == Exit.OK
    ines = Shell(region, "ines")
    done = ines.type("submit", "--dry-run", "--gpus", "2", "--time", "5m", "--", "true")
    assert done.returncode == Exit.OK, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.split()[1:2] == ["k8s"]}
    assert rows[name].endswith("chosen")
    assert "refused: placement-refused" in rows["small"]
    assert "small: 2 GPUs were asked for, site small gives a job at most 1; --gpus 1" in done.stdout
    plan = ines.json("submit", "--dry-run", "--gpus", "2", "--time", "5m", "--", "true")
    assert plan["sites"][0]["expected_start_at"] is not None, "there is room now"

"""What a job finds inside a pod, and how what people type arrives there: exactly, or refused in one sentence."""

import hashlib
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from integration.slurm_jobs import fresh, known, recently, spec, wait_for

from adapters.k8s import manifests
from adapters.port import Accepted, Attempt, AttemptState, Forecast, JobSpec, Known, Rejected

if TYPE_CHECKING:
    from clusters.kubernetes.pool import KubernetesPool

    from adapters.k8s import K8sPool

pytestmark = pytest.mark.kubernetes
ACCOUNT = "idf-jobs"

HOSTILE = (
    "$(HOSTNAME)", "$$(HOSTNAME)", "$HOSTNAME", "$$", "${PATH}", "`id`", "; rm -rf /", "a b\tc", "line\nline", "\r", "",
    "'", '"', "\\", "{{ .metadata }}", "{}", "[]", "- x: y", "é ü 漢字 🜚", "\u202e right to left", "\x1b[31m", "%s %d",
    "-rf", "--help", "&amp;", "null", "true", "~", "*", "#PBS -l x", "#SBATCH --array=0-99", "x" * 4000,
)  # fmt: skip


@pytest.fixture
def site(k8s_site: "Callable[..., K8sPool]", real_node: "KubernetesPool") -> "K8sPool":
    return k8s_site()


def send(site: "K8sPool", job: JobSpec) -> Known:
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted), answer
    return known(job, answer.site_job_id)


def ended(site: "K8sPool", job: Known) -> Attempt:
    def attempt() -> Attempt | None:
        told = site.observe([job]).attempts.get(job.name, ())
        return told[-1] if told and told[-1].state.ended else None

    found: Attempt = wait_for(attempt, limit_s=120)
    return found


def has_run(site: "K8sPool", job: Known) -> bool:
    """Whether a job has run for a second at least: a pool's times are whole seconds, and a shorter run is none."""
    told = site.observe([job]).attempts.get(job.name, ())
    return bool(told) and told[-1].state is AttemptState.RUNNING and told[-1].elapsed_s > 0


def log_of(site: "K8sPool", job: Known) -> bytes:
    return site.read_log(job.account, job.name, 0, 1 << 20, 0).data


def test_hostile_words_and_values_arrive_as_they_were(site: "K8sPool") -> None:
    names = {f"V{number}": value for number, value in enumerate(HOSTILE)}
    script = 'for word in "$@"; do printf "%s\\0" "$word"; done\n'
    script += "".join(f'printf "%s\\0" "${name}"\n' for name in names)
    job = send(site, spec(ACCOUNT, script, arguments=HOSTILE, environment=names))
    assert ended(site, job).state is AttemptState.SUCCEEDED
    assert log_of(site, job).decode().split("\0")[:-1] == [*HOSTILE, *HOSTILE]


def test_a_command_without_a_script_runs_as_it_is(site: "K8sPool") -> None:
    job = send(site, spec(ACCOUNT, b"", arguments=("/bin/echo", "$(HOME)", "$$")))
    ended(site, job)
    assert log_of(site, job) == b"$(HOME) $$\n"


def test_a_script_of_any_bytes_arrives_whole(site: "K8sPool") -> None:
    rest = bytes(range(256)) * 40
    script = b"#!/bin/sh\nsha256sum < /idf/payload/script\nexit 0\n" + rest
    job = send(site, spec(ACCOUNT, script))
    ended(site, job)
    assert log_of(site, job).split()[0].decode() == hashlib.sha256(script).hexdigest()


def test_a_job_has_no_token_no_right_and_no_other_user(site: "K8sPool") -> None:
    script = "id -u; ls /var/run/secrets 2>/dev/null; touch /idf/payload/x 2>/dev/null; touch here && echo may; env\n"
    job = send(site, spec(ACCOUNT, script))
    ended(site, job)
    first, second, *rest = log_of(site, job).decode().splitlines()
    assert (first, second) == ("65534", "may")
    assert [line for line in rest if line.startswith("IDF_")] == ["IDF_OUTPUTS=/idf/outputs"]


def test_a_snapshot_is_unpacked_where_the_job_starts(site: "K8sPool", tmp_path: Path) -> None:
    archive, data = tmp_path / "a.tar.gz", fresh().encode() * 200_000
    with tarfile.open(archive, "w:gz", compresslevel=0) as tar:
        entry = tarfile.TarInfo("folder/data")
        entry.size = len(data)
        tar.addfile(entry, BytesIO(data))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    site.put_snapshot(ACCOUNT, digest, archive)
    job = send(site, spec(ACCOUNT, "sha256sum < folder/data\n", snapshot=digest))
    assert ended(site, job).state is AttemptState.SUCCEEDED
    assert log_of(site, job).split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_job_past_its_limit_is_timed_out(site: "K8sPool", monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubelet counts seconds; a minute of them would only be waited for."""
    monkeypatch.setattr(manifests, "_minutes", lambda seconds: seconds // 12)
    last = ended(site, send(site, spec(ACCOUNT, "sleep 600\n", time_limit_s=60)))
    assert last.state is AttemptState.TIMED_OUT
    assert 5 <= last.elapsed_s <= 20


def test_a_cancelled_job_may_put_its_things_in_order(site: "K8sPool") -> None:
    """SIGTERM reaches the user's program, and what it does then is waited for."""
    script = "trap 'sleep 1; exit 9' TERM\necho ready\nwhile true; do sleep 0.1; done\n"
    job = send(site, spec(ACCOUNT, script))
    wait_for(lambda: log_of(site, job) == b"ready\n")
    assert isinstance(site.cancel([job])[job.name], Accepted)
    last = ended(site, job)
    assert (last.state, last.exit_code) == (AttemptState.CANCELLED, 9)


def test_a_cancelled_job_that_does_not_end_is_ended(
    k8s_site: "Callable[..., K8sPool]", real_node: "KubernetesPool"
) -> None:
    site = k8s_site(kill_grace_s=2)
    job = send(site, spec(ACCOUNT, "trap '' TERM\necho ready\nwhile true; do sleep 0.1; done\n"))
    wait_for(lambda: log_of(site, job) == b"ready\n")
    begun = datetime.now(UTC)
    site.cancel([job])
    last = ended(site, job)
    assert (last.state, last.exit_code) == (AttemptState.CANCELLED, 137)
    assert last.ended_at is not None
    assert 1 <= (last.ended_at - begun).total_seconds() <= 15


def test_out_of_memory_is_told_apart(site: "K8sPool") -> None:
    eater = "x=xxxxxxxxxxxxxxxx; while true; do x=$x$x; done\n"
    last = ended(site, send(site, spec(ACCOUNT, eater, memory_mib=16)))
    assert last.state is AttemptState.OUT_OF_MEMORY


def test_each_pod_over_several_nodes_knows_its_number(site: "K8sPool", real_node: "KubernetesPool") -> None:
    job = send(site, spec(ACCOUNT, "true\n", gpus=4, gpu_type="v100", nodes=2, cpus_per_gpu=1))
    last = ended(site, job)
    assert (last.gpus, last.node_count, len(last.nodes)) == (4, 2, 2)
    pods = real_node.core().list_namespaced_pod(ACCOUNT, label_selector=f"idf-compute/job={job.name}").items
    variables = {variable.name: variable.value for variable in pods[0].spec.containers[0].env}
    assert variables["IDF_FIRST_NODE"] == f"{job.name}-0.idf-jobs"
    assert sorted(pod.spec.hostname for pod in pods) == [f"{job.name}-{number}" for number in (0, 1)]


def test_why_a_job_waits_is_told(site: "K8sPool") -> None:
    filler = send(site, spec(ACCOUNT, "sleep 50\n", gpus=8))
    waiting = send(site, spec(ACCOUNT, "true\n", gpus=8))

    def reason() -> str:
        return site.observe([waiting]).attempts[waiting.name][-1].reason

    wait_for(lambda: "Insufficient nvidia.com/gpu" in reason())
    site.cancel([filler, waiting])
    ended(site, filler)
    ended(site, waiting)


def test_a_job_that_could_not_start_in_time_is_cancelled(site: "K8sPool") -> None:
    filler = send(site, spec(ACCOUNT, "sleep 50\n", gpus=8))
    late = send(site, spec(ACCOUNT, "true\n", gpus=8, deadline=recently()))
    last = ended(site, late)
    assert (last.state, last.started_at, last.elapsed_s) == (AttemptState.CANCELLED, None, 0)
    site.cancel([filler])
    ended(site, filler)


def test_a_pool_with_room_would_start_a_job_now(
    k8s_site: "Callable[..., K8sPool]", real_node: "KubernetesPool"
) -> None:
    start = wait_for(lambda: k8s_site().expected_start(spec(ACCOUNT, gpus=1)).start)
    assert abs((start - datetime.now(UTC)).total_seconds()) < 60
    site = k8s_site()
    filler = send(site, spec(ACCOUNT, "sleep 50\n", gpus=8))
    wait_for(lambda: site.observe([filler]).attempts[filler.name][-1].state is AttemptState.RUNNING)
    full = k8s_site().expected_start(spec(ACCOUNT, gpus=1))
    assert full == Forecast(None, "no node has room now, and Kubernetes does not tell when one will")
    site.cancel([filler])
    ended(site, filler)


def test_what_the_pools_parts_said_is_told(site: "K8sPool") -> None:
    job = send(site, spec(ACCOUNT, "true\n"))
    ended(site, job)
    said = {event.reason: event for event in site.site_events(job.account, job.name)}
    assert {"SuccessfulCreate", "Scheduled", "Started"} <= set(said)
    assert not said["Scheduled"].warning
    assert said["Scheduled"].at.tzinfo is not None
    assert site.site_events(job.account, fresh()) == ()


def test_a_followed_log_is_asked_for_once(site: "K8sPool", monkeypatch: pytest.MonkeyPatch) -> None:
    job = send(site, spec(ACCOUNT, "for n in $(seq 40); do echo line $n; sleep 0.2; done\n"))
    api, asked = site.api(), list[str]()
    begin = api.open

    def counted(path: str, timeout_s: tuple[float, float], **query: Any) -> Any:
        if path.endswith("/log"):
            asked.append(path)
        return begin(path, timeout_s, **query)

    monkeypatch.setattr(api, "open", counted)
    data, offset = b"", 0

    def read_on() -> bool:
        nonlocal data, offset
        chunk = site.read_log(job.account, job.name, offset, 1 << 20, 1)
        data, offset = data + chunk.data, chunk.next_offset
        return data.endswith(b"line 40\n")

    wait_for(read_on, limit_s=60)
    assert data == b"".join(b"line %d\n" % number for number in range(1, 41))
    begun = [path for path in asked if path]
    assert len(begun) <= 10, "once, and while its container had not begun"
    ended(site, job)
    assert site.read_log(job.account, job.name, offset, 1 << 20, 0).data == b""
    assert log_of(site, job) == data


BAD: dict[str, dict[str, Any]] = {
    "a name in capitals": {"name": "IDF-X"},
    "a name that is a path": {"name": "../x"},
    "a name with a line break": {"name": "idf-x\n"},
    "a name that is too long": {"name": "idf-" + "x" * 60},
    "a variable with a dash": {"environment": {"A-B": "x"}},
    "a variable of two lines": {"environment": {"A\nB": "x"}},
    "a NUL in a value": {"environment": {"A": "x\0"}},
    "half a character": {"arguments": ("\ud800",)},
    "a GPU type nobody has": {"gpu_type": "h100"},
    "a limit of no whole minutes": {"time_limit_s": 61},
    "GPUs that nodes cannot share": {"gpus": 3, "nodes": 2},
    "a script larger than a Secret": {"script": b"#" * (1 << 20)},
    "nothing to run": {"script": b""},
    "a snapshot that is no digest": {"snapshot": "$(id)"},
    "more memory than nodes have": {"memory_mib": 1 << 30},
}


@pytest.mark.parametrize("bad", BAD, ids=lambda name: name.replace(" ", "-"))
def test_what_cannot_be_carried_is_refused_in_one_sentence(site: "K8sPool", bad: str) -> None:
    changes = dict(BAD[bad])
    job = spec(ACCOUNT, changes.pop("script", b"true\n"), **changes)
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Rejected)
    assert answer.reason
    assert "\n" not in answer.reason


def test_kubelet_tells_which_gpus_a_pod_holds(site: "K8sPool", real_node: "KubernetesPool") -> None:
    from accounting.pod_resources import held_devices

    socket = Path(f"/proc/{real_node.init_pid}/root/var/lib/kubelet/pod-resources/kubelet.sock")
    job = send(site, spec(ACCOUNT, "sleep 30\n", gpus=3))
    core = real_node.core()

    def held() -> list[tuple[str, ...]]:
        pods = core.list_namespaced_pod(ACCOUNT, label_selector=f"idf-compute/job={job.name}").items
        names = {pod.metadata.name for pod in pods}
        return [each.devices for each in held_devices(socket) if each.namespace == ACCOUNT and each.pod in names]

    (devices,) = wait_for(held)
    assert len(devices) == 3
    assert all(device.startswith("GPU-") for device in devices)
    site.cancel([job])
    ended(site, job)
    wait_for(lambda: not held())

"""All of the job model on a real Slurm: what is asked for is what happens."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from clusters.slurm.cluster import SlurmCluster
from integration.slurm_jobs import fresh, known, spec, wait_for

from adapters.port import Accepted, After, AfterKind, Attempt, AttemptState, JobSpec, Known, Rejected, Unreachable
from adapters.slurm import SlurmSsh
from cli.environments import example

pytestmark = pytest.mark.cluster
TOOLS = Path(__file__).with_name("tools_of_a_site.bash")
"""Stand-ins for environment-modules and Apptainer, which are not installed here: see there what they do."""


@pytest.fixture
def site(slurm_site: Callable[..., SlurmSsh]) -> SlurmSsh:
    return slurm_site()


@pytest.fixture
def account(slurm_cluster: SlurmCluster) -> str:
    return slurm_cluster.accounts[0]


@pytest.fixture
def tools(slurm_cluster: SlurmCluster, account: str) -> Iterator[str]:
    """The account with modules and Apptainer in its login profile."""
    slurm_cluster.run(["sh", "-c", "cat > ~/.bash_profile"], user=account, input=TOOLS.read_bytes())
    yield account
    slurm_cluster.run(["rm", ".bash_profile"], user=account)


def send(site: SlurmSsh, job: JobSpec) -> Known:
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted), answer
    return known(job, answer.site_job_id)


def newest(site: SlurmSsh, job: Known) -> Attempt | None:
    attempts = site.observe([job]).attempts.get(job.name, ())
    return attempts[-1] if attempts else None


def ended(site: SlurmSsh, job: Known, limit_s: float = 60) -> Attempt:
    found: Attempt = wait_for(lambda: (seen := newest(site, job)) and seen.state.ended and seen, limit_s=limit_s)
    return found


def waiting(site: SlurmSsh, job: Known, reason: str) -> Attempt:
    """Return a job once the queue says that it waits for this."""

    def seen() -> Attempt | None:
        found = newest(site, job)
        return found if found and found.state is AttemptState.QUEUED and found.reason == reason else None

    attempt: Attempt = wait_for(seen)
    return attempt


def log_of(site: SlurmSsh, job: Known) -> str:
    return site.read_log(job.account, job.name, 0, 1 << 20, 0).data.decode()


def told(cluster: SlurmCluster, job: Known) -> dict[str, str]:
    """What the controller has of a job, as `scontrol show job` tells it."""
    out = cluster.run(["scontrol", "--oneliner", "show", "job", job.site_job_id]).stdout.decode()
    return dict(pair.split("=", 1) for pair in out.split() if "=" in pair)


@pytest.mark.parametrize(
    ("exit_code", "kind", "state"),
    [
        (0, AfterKind.OK, AttemptState.SUCCEEDED),
        (3, AfterKind.OK, AttemptState.CANCELLED),
        (3, AfterKind.ANY, AttemptState.SUCCEEDED),
        (3, AfterKind.NOT_OK, AttemptState.SUCCEEDED),
        (0, AfterKind.NOT_OK, AttemptState.CANCELLED),
    ],
)
def test_a_job_runs_after_another(
    site: SlurmSsh, account: str, exit_code: int, kind: AfterKind, state: AttemptState
) -> None:
    first = send(site, spec(account, f"sleep 4; exit {exit_code}\n", gpus=0, gpu_type=""))
    second = send(site, spec(account, "echo ran\n", gpus=0, gpu_type="", after=(After(kind, first.site_job_id),)))
    waiting(site, second, "Dependency")
    done = ended(site, second)
    before = ended(site, first)
    assert done.state is state
    assert (log_of(site, second) == "ran\n") is (state is AttemptState.SUCCEEDED)
    if done.started_at is not None and state is AttemptState.SUCCEEDED:
        assert before.ended_at is not None
        assert done.started_at >= before.ended_at


def test_a_job_after_one_that_the_queue_has_forgotten_is_not_sent_yet(site: SlurmSsh, account: str) -> None:
    """Its end is told by accounting soon; until then nothing is known of it, and nothing is guessed."""
    job = spec(account, "echo ran\n", gpus=0, gpu_type="", after=(After(AfterKind.OK, "9999999"),))
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Unreachable), answer


def test_a_job_begins_when_it_may_and_tells_when_it_is_expected(site: SlurmSsh, account: str) -> None:
    begin = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    job = send(site, spec(account, "echo ran\n", begin=begin))
    seen = waiting(site, job, "BeginTime")
    assert seen.expected_start == begin
    assert isinstance(site.cancel([job])[job.name], Accepted)
    assert ended(site, job).state is AttemptState.CANCELLED, "found by its id, though it never could start"


def test_the_program_gets_its_signal_before_the_time_limit(
    slurm_cluster: SlurmCluster, site: SlurmSsh, account: str
) -> None:
    """Slurm may be a minute early: with 110 s before a limit of 120 s it comes within the first seconds."""
    script = "trap 'echo saved > \"$IDF_OUTPUTS/checkpoint\"; exit 0' USR1\necho ready\nsleep 120 & wait\n"
    job = send(site, spec(account, script, time_limit_s=120, signal="USR1", signal_s=110))
    wait_for(lambda: log_of(site, job) == "ready\n")
    assert ended(site, job, limit_s=110).state is AttemptState.SUCCEEDED
    assert site.read_output(account, job.name, "checkpoint", 0, 100).data == b"saved\n"


@pytest.mark.parametrize("requeues", [0, 2])
def test_a_site_may_run_a_job_again_only_where_its_policy_says_so(
    slurm_cluster: SlurmCluster, site: SlurmSsh, account: str, requeues: int
) -> None:
    job = send(site, spec(account, "echo run; sleep 30\n", requeues=requeues))
    assert told(slurm_cluster, job)["Requeue"] == ("1" if requeues else "0")
    wait_for(lambda: log_of(site, job) == "run\n")
    assert (slurm_cluster.run(["scontrol", "requeue", job.site_job_id]).returncode == 0) is bool(requeues)
    site.cancel([job])
    ended(site, job)


def test_several_nodes_with_gpus_and_memory_on_each(slurm_cluster: SlurmCluster, site: SlurmSsh, account: str) -> None:
    wanted = spec(account, "echo $SLURM_JOB_NUM_NODES\n", gpus=4, nodes=2, cpus_per_gpu=2, memory_mib=600)
    job = send(site, wanted)
    done = ended(site, job)
    assert (done.state, log_of(site, job)) == (AttemptState.SUCCEEDED, "2\n")
    assert (done.gpus, done.node_count, done.cpus, done.memory_mib) == (4, 2, 8, 1200)
    assert told(slurm_cluster, job)["TresPerNode"] == "gres:gpu:a100:2"


def test_modules_are_loaded_in_their_order(site: SlurmSsh, tools: str) -> None:
    job = send(site, spec(tools, "echo $LOADEDMODULES\n", gpus=0, gpu_type="", modules=("cuda/12.4", "python/3.12")))
    assert ended(site, job).state is AttemptState.SUCCEEDED
    assert log_of(site, job) == "cuda/12.4:python/3.12\n"


def test_a_module_that_is_not_there_ends_the_job_with_a_sentence(site: SlurmSsh, tools: str) -> None:
    job = send(site, spec(tools, "echo ran\n", gpus=0, gpu_type="", modules=("missing/1",)))
    assert ended(site, job).state is AttemptState.FAILED
    assert log_of(site, job).endswith("idf-compute: the module missing/1 could not be loaded\n")


def test_a_site_without_modules_and_apptainer_says_so(site: SlurmSsh, account: str) -> None:
    asked = {"modules": ("cuda",)}, {"container": "images/a.sif"}
    for wanted, sentence in zip(asked, ("no environment modules", "no apptainer"), strict=True):
        job = send(site, spec(account, "echo ran\n", gpus=0, gpu_type="", **wanted))
        assert ended(site, job).state is AttemptState.FAILED
        assert log_of(site, job) == f"idf-compute: this site has {sentence}\n"


LIBRARIES = {
    "torch": """\
__version__ = "2.5"
class cuda:
    is_available = staticmethod(lambda: True)
zeros = lambda n, device: 0.0
save = lambda what, path: open(path, "w").write(repr(what))
""",
    "jax": "__version__ = '0.4'\njit = lambda f: f\ndefault_backend = lambda: 'gpu'\n",
    "numpy": "__version__ = '2.1'\narange = range\nsave = lambda path, what: open(path, 'w').write(repr(list(what)))\n",
}
"""Only as much of the libraries as the examples use: they are not installed here."""


@pytest.mark.parametrize(
    ("name", "library", "how", "output", "said"),
    [
        ("pytorch", "torch", "image", "checkpoint.pt", "torch 2.5 on cuda\nweight after 100 steps: 1.0000\n"),
        ("jax", "jax", "module", "square.txt", "jax 0.4 on gpu\n"),
        ("python", "numpy", "module", "prepared.npy", "numpy 2.1 with 1 CPUs\n"),
    ],
)
def test_the_example_of_each_ready_made_environment_runs(
    slurm_cluster: SlurmCluster, site: SlurmSsh, tools: str, name: str, library: str, how: str, output: str, said: str
) -> None:
    brought = f"mkdir -p ~/lib modules && cat > ~/lib/{library}.py"
    slurm_cluster.run(["sh", "-c", brought], user=tools, input=LIBRARIES[library].encode())
    path = f"modules/{name}" if how == "module" else f"{name}.sif.bash"
    slurm_cluster.run(["sh", "-c", f"echo 'export PYTHONPATH=$HOME/lib' > ~/{path}"], user=tools)
    asked = {"modules": (name,)} if how == "module" else {"container": f"{name}.sif"}
    job = send(site, spec(tools, example(name), **asked))
    assert ended(site, job).state is AttemptState.SUCCEEDED, log_of(site, job)
    assert log_of(site, job).endswith(said)
    assert site.read_output(tools, job.name, output, 0, 100).data


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_job_runs_in_its_image(site: SlurmSsh, tools: str, gpus: int) -> None:
    script = '#!/bin/bash\necho "in $APPTAINER_CONTAINER as $IDF_VALUE with $*"\n'
    gpu_type = "a100" if gpus else ""
    wanted = spec(
        tools, script, gpus=gpus, gpu_type=gpu_type, container="images/torch.sif", arguments=("a b", "--nv"),
        environment={"IDF_VALUE": "x y"},
    )  # fmt: skip
    job = send(site, wanted)
    assert ended(site, job).state is AttemptState.SUCCEEDED, log_of(site, job)
    nv = "--nv " if gpus else ""
    assert log_of(site, job).splitlines() == [
        f"apptainer exec {nv}images/torch.sif", "in images/torch.sif as x y with a b --nv",
    ]  # fmt: skip


def test_outputs_are_listed_and_read_as_the_account(site: SlurmSsh, account: str) -> None:
    script = """\
cd "$IDF_OUTPUTS" || exit 1
mkdir -p deep/er; printf one > a.txt; printf two > deep/er/b.bin; printf three > 'it is.txt'; printf x > .hidden
ln -s /etc/passwd link; mkfifo pipe; ln -s / root; printf 1 > Model; printf 2 > model; printf n > $'new\\nline'
printf u > $'bad\\xff'
"""
    job = send(site, spec(account, script, gpus=0, gpu_type=""))
    assert ended(site, job).state is AttemptState.SUCCEEDED, log_of(site, job)
    found = site.list_outputs(account, job.name)
    assert {file.path: file.size_bytes for file in found.files} == {
        ".hidden": 1, "Model": 1, "a.txt": 3, "deep/er/b.bin": 3, "it is.txt": 5,
    }  # fmt: skip
    assert abs(found.files[0].modified_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert len(found.left_out) == 6
    assert any("'link'" in sentence and "regular" in sentence for sentence in found.left_out)
    piece = site.read_output(account, job.name, "deep/er/b.bin", 1, 100)
    assert (piece.data, piece.size_bytes) == (b"wo", 3)
    for path in (
        "link",
        "pipe",
        "root/etc/passwd",
        "../claim",
        "/etc/passwd",
        "missing",
        "deep",
        "new\nline",
        "",
        "a\0b",
    ):
        with pytest.raises(Rejected):
            site.read_output(account, job.name, path, 0, 100)


def test_an_output_folder_that_became_a_link_is_refused(
    slurm_cluster: SlurmCluster, site: SlurmSsh, account: str
) -> None:
    name = fresh()
    assert not site.list_outputs(account, name).exists
    slurm_cluster.run(
        ["sh", "-c", f"mkdir -p ~/.idf/jobs/{name} && ln -s /etc ~/.idf/jobs/{name}/outputs"], user=account
    )
    with pytest.raises(Rejected):
        site.list_outputs(account, name)
    with pytest.raises(Rejected):
        site.read_output(account, name, "passwd", 0, 100)


def test_the_expected_start_is_slurms_own(site: SlurmSsh, account: str) -> None:
    now = site.expected_start(spec(account))
    assert now.start is not None, now
    assert abs(now.start - datetime.now(UTC)) < timedelta(minutes=1)
    begin = (datetime.now(UTC) + timedelta(hours=2)).replace(microsecond=0)
    later = site.expected_start(spec(account, begin=begin))
    assert later.start is not None
    assert later.start >= begin
    never = site.expected_start(spec(account, gpus=400))
    assert never.start is None
    assert never.unknown is not None
    assert "Requested node configuration is not available" in never.unknown
    filler = send(site, spec(account, "sleep 100\n", gpus=8, nodes=2, time_limit_s=1800))
    wait_for(lambda: (seen := newest(site, filler)) and seen.state is AttemptState.RUNNING)
    behind = site.expected_start(spec(account, gpus=8, nodes=2))
    assert behind.start is not None
    assert behind.start > datetime.now(UTC) + timedelta(minutes=25)
    site.cancel([filler])
    ended(site, filler)


def test_nothing_but_the_words_of_a_forecast_reaches_slurm(site: SlurmSsh, account: str) -> None:
    unknown = site.expected_start(spec(account, partition="x; id")).unknown
    assert unknown == "not a word of a site: 'x; id'"


def test_followers_of_one_site_share_what_runs_there(slurm_cluster: SlurmCluster, site: SlurmSsh, account: str) -> None:
    """Twenty watch: the head node never runs more for them than one gateway, and one child for their account."""
    from concurrent.futures import ThreadPoolExecutor

    job = send(site, spec(account, "for n in 1 2 3 4 5 6; do echo $n; sleep 1; done\n", gpus=0, gpu_type=""))
    wait_for(lambda: log_of(site, job))

    def follow(_: int) -> str:
        text, offset = "", 0
        while not text.endswith("6\n"):
            chunk = site.read_log(account, job.name, offset, 1000, 5)
            text, offset = text + chunk.data.decode(), chunk.next_offset
        return text

    most = 0
    with ThreadPoolExecutor(20) as pool:
        followers = [pool.submit(follow, number) for number in range(20)]
        while not all(follower.done() for follower in followers):
            out = slurm_cluster.run(["ps", "-eo", "args"]).stdout.decode()
            running = [line for line in out.splitlines() if "idf-gateway" in line and "sudo" not in line]
            most = max(most, len([line for line in running if "python" in line]))
    assert {follower.result() for follower in followers} == {"1\n2\n3\n4\n5\n6\n"}
    assert 0 < most <= 3


def test_a_hetjob_line_makes_one_plain_job(slurm_cluster: SlurmCluster, site: SlurmSsh, account: str) -> None:
    script = "#!/bin/bash\n#SBATCH hetjob\n#SBATCH --het-group=1\necho $SLURM_HET_SIZE plain\n"
    job = send(site, spec(account, script, gpus=0, gpu_type="", arguments=(":", "--het-group=1")))
    assert ended(site, job).state is AttemptState.SUCCEEDED
    assert log_of(site, job) == "plain\n"
    assert "HetJobId" not in told(slurm_cluster, job)

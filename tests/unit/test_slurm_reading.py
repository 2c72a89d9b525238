"""Reading what real Slurms said (tests/recordings, one folder a release), and what one might say one day."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.port import (
    UNLIMITED_S,
    Absent,
    Accepted,
    AttemptState,
    JobSpec,
    Known,
    Rejected,
    Sent,
    Uncertain,
    Unreachable,
)
from adapters.slurm.commands import Adopt, Cancel, Check, Reply, Submit, submitted
from adapters.slurm.observation import Observe
from adapters.slurm.refusals import why_not
from adapters.slurm.rows import host_list, queue_rows
from adapters.slurm.states import Tres, attempt_state, parse_tres

RECORDINGS = Path(__file__).parents[1] / "recordings" / "slurm"
RELEASES = sorted(folder.name for folder in RECORDINGS.iterdir() if folder.name[0].isdigit())
FAILED = "sbatch: error: Batch job submission failed: "
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
JOBS = {"succeeded": "1", "failed": "2", "signalled": "3", "timed-out": "4", "cancelled": "5", "requeued": "6",
        "running": "7", "two-nodes": "8", "waiting": "9"}  # fmt: skip


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def recorded(release: str) -> Callable[[str], bytes]:
    return lambda name: (RECORDINGS / release / f"{name}.txt").read_bytes()


def without_its_end(said: bytes, elapsed_s: int = 1) -> bytes:
    """Accounting's row of the first job, as one whose end it does not know."""
    row = re.compile(rb'(?<=["n])(1\|[A-Z]+\|idf001\|\d+\|\d+\|)\d+\|\d+(\|10\|0:0)')
    changed, times = row.subn(rb"\g<1>Unknown|%d\2" % elapsed_s, said)
    assert times == 1
    return changed


def known(word: str, site_job_id: str = "") -> Known:
    return Known(f"idf-{word}", "idf001", site_job_id or JOBS[word], LONG_AGO)


def observe(said: bytes, *jobs: Known):  # type: ignore[no-untyped-def]
    return Observe(jobs, "recorded").read(Reply.read(said))


def test_every_recorded_state(recorded: Callable[[str], bytes]) -> None:
    seen = observe(recorded("observe"), *(known(word) for word in JOBS))
    states = {word: seen.attempts[f"idf-{word}"][-1].state.value for word in JOBS}
    assert states == {
        "succeeded": "succeeded",
        "failed": "failed",
        "signalled": "failed",
        "timed-out": "timed_out",
        "cancelled": "cancelled",
        "requeued": "queued",
        "running": "running",
        "two-nodes": "running",
        "waiting": "queued",
    }
    assert seen.warnings == ()


def test_what_an_attempt_used(recorded: Callable[[str], bytes]) -> None:
    seen = observe(recorded("observe"), known("failed"), known("signalled"), known("two-nodes"), known("timed-out"))
    failed, signalled = seen.attempts["idf-failed"][0], seen.attempts["idf-signalled"][0]
    assert (failed.exit_code, failed.signal, failed.gpus, failed.gpu_types) == (3, None, 1, {"a100": 1})
    assert (signalled.exit_code, signalled.signal) == (0, 11)
    assert (seen.attempts["idf-two-nodes"][0].gpus, seen.attempts["idf-two-nodes"][0].nodes) == (2, ("node1", "node2"))
    late = seen.attempts["idf-timed-out"][0]
    assert late.ended_at is not None
    assert late.started_at is not None
    assert late.ended_at - late.started_at == timedelta(seconds=late.elapsed_s)
    assert late.time_limit_s == 60


def test_a_requeued_job_has_two_attempts(recorded: Callable[[str], bytes]) -> None:
    first, second = observe(recorded("observe"), known("requeued")).attempts["idf-requeued"]
    assert (first.state, second.state) == (AttemptState.PREEMPTED, AttemptState.QUEUED)
    assert first.elapsed_s > 0
    assert second.started_at is None, "the queue's start of a job that waits is a forecast"
    assert first.source_key != second.source_key


def test_a_job_that_25_11_expedites_waits_again(release: str, recorded: Callable[[str], bytes]) -> None:
    """It failed, and its epilog decides whether it runs again at once: no end, whatever its last run ended with."""
    if tuple(map(int, release.split("."))) < (25, 11):
        pytest.skip(f"Slurm {release} expedites nothing")
    said = recorded("expediting")
    number = re.search(rb'"out":"(\d+)\|EXPEDITING', said)
    assert number is not None
    seen = observe(said, Known("idf-expediting", "idf001", number[1].decode(), LONG_AGO))
    *before, last = seen.attempts["idf-expediting"]
    assert (last.state, last.native_state) == (AttemptState.QUEUED, "EXPEDITING")
    assert [run.native_state for run in before] == ["REQUEUED"] * len(before) != []
    assert all(run.elapsed_s > 0 and run.state.ended for run in before), "each of its runs is metered"
    assert seen.warnings == ()


def test_what_neither_knows_is_absent_only_when_both_could_tell(recorded: Callable[[str], bytes]) -> None:
    said, nobody = recorded("observe"), known("nobody", "99999999")
    assert observe(said, nobody).absent == {"idf-nobody"}
    behind = said.replace(b'"rows_not_written":0', b'"rows_not_written":7')
    assert not observe(behind, nobody).absent
    without = said.replace(b'"accounting":[{"rc":0,', b'"accounting":[{"rc":1,')
    seen = observe(without, nobody, known("succeeded"), known("running"))
    assert not seen.absent
    assert list(seen.attempts) == ["idf-running"], "an end is told by accounting alone"
    assert any("accounting" in warning for warning in seen.warnings)


def test_the_end_waits_for_accounting(recorded: Callable[[str], bytes]) -> None:
    lagging = without_its_end(recorded("observe")).replace(b"1|COMPLETED|idf001|", b"1|RUNNING|idf001|")
    seen = observe(lagging, known("succeeded"))
    assert not seen.attempts
    assert not seen.absent


def test_a_runaway_is_at_work_in_accounting_alone(recorded: Callable[[str], bytes]) -> None:
    """The queue forgot the job, the controller has nothing left to tell, and accounting never heard of its end."""
    said = (
        without_its_end(recorded("observe"), elapsed_s=4000)
        .replace(b"\\n1|COMPLETED|0|", b"\\n99|COMPLETED|0|")
        .replace(b"1|COMPLETED|idf001|", b"1|RUNNING|idf001|")
    )
    seen = observe(said, known("succeeded"), known("running"))
    assert seen.runaways == {"idf-succeeded"}
    assert (seen.attempts["idf-succeeded"][-1].state, seen.attempts["idf-succeeded"][-1].elapsed_s) == (
        AttemptState.RUNNING,
        4000,
    )
    behind = said.replace(b'"rows_not_written":0', b'"rows_not_written":7')
    assert not observe(behind, known("succeeded")).runaways, "its end may be on its way"


@pytest.mark.parametrize("forgotten", [False, True])
def test_an_end_without_its_time_is_no_end_yet(recorded: Callable[[str], bytes], forgotten: bool) -> None:
    """Right after slurmdbd came back a row says COMPLETED with an unknown end, and its time still grows."""
    said = without_its_end(recorded("observe"), elapsed_s=7)
    assert b"1|COMPLETED|idf001|" in said
    seen = observe(said.replace(b"\\n1|COMPLETED|0|", b"\\n99|COMPLETED|0|") if forgotten else said, known("succeeded"))
    assert not seen.attempts
    assert not seen.absent


def test_an_earlier_attempt_is_not_taken_for_the_end(recorded: Callable[[str], bytes]) -> None:
    """The queue shows the second attempt's end, accounting knows of the first one only: tried on 22.05."""
    said = (
        recorded("observe")
        .replace(b"6|PENDING|1|", b"6|CANCELLED|1|")
        .replace(b"\\n6|PENDING|idf001|", b"\\n666|PENDING|idf001|")
    )
    seen = observe(said, known("requeued"))
    assert not seen.attempts
    assert not seen.absent
    gone = said.replace(b"6|CANCELLED|1|", b"66|CANCELLED|1|")
    assert not observe(gone, known("requeued")).attempts


def test_an_answer_that_is_not_whole_teaches_nothing(recorded: Callable[[str], bytes]) -> None:
    said = recorded("observe")
    for part in (b"", said[:500], said.rsplit(b"* ", 1)[0]):
        with pytest.raises(Unreachable):
            observe(part, known("running"))


def test_a_row_that_cannot_be_read_is_raised(recorded: Callable[[str], bytes]) -> None:
    said = recorded("observe").replace(b"|idf-running", b"").replace(b"1|COMPLETED|idf001|", b"1|COMPLETED|idf001|x")
    seen = observe(said, known("running"), known("succeeded"))
    assert len([warning for warning in seen.warnings if "cannot be read" in warning]) == 2
    assert not seen.attempts


def test_a_state_nobody_knows_is_no_end(recorded: Callable[[str], bytes]) -> None:
    said = recorded("observe").replace(b"7|RUNNING|", b"7|DREAMING|")
    seen = observe(said, known("running"))
    assert seen.attempts["idf-running"][0].state is AttemptState.UNKNOWN
    assert any("DREAMING" in warning for warning in seen.warnings)


def test_anothers_job_under_our_id_is_neither_ours_nor_absent(recorded: Callable[[str], bytes]) -> None:
    seen = observe(recorded("observe"), known("somebody", "7"))
    assert not seen.attempts
    assert not seen.absent
    assert any("is not idf-somebody" in warning for warning in seen.warnings)


def test_of_two_jobs_with_one_id_each_has_its_own_rows(recorded: Callable[[str], bytes]) -> None:
    """A killed controller forgot the one, which is absent or as accounting knows it; the later one has the queue."""
    later = replace(known("running"), namesakes=frozenset({"idf-forgotten"}))
    first = replace(known("forgotten", "7"), namesakes=frozenset({"idf-running"}))
    seen = observe(recorded("observe"), first, later)
    assert seen.absent == {"idf-forgotten"}
    assert list(seen.attempts) == ["idf-running"]
    assert seen.warnings == ()
    assert Observe([first, later], "recorded").request["tasks"] == {"7": 4}, (
        "accounting is asked, whatever the queue has"
    )


def test_adoption_finds_each_name_once(recorded: Callable[[str], bytes]) -> None:
    sent = [Sent(f"idf-{word}", "idf001", "b", LONG_AGO) for word in ("succeeded", "requeued", "waiting", "nobody")]
    burnt = b'idf001 {"batch":"b","closed_s_ago":0,"begun":[],"answers":[]}\n'
    adopt = Adopt(sent, wait_s=1, settle_s=310)
    assert adopt.read(Reply.read(burnt + recorded("look_up"))) == {
        "idf-succeeded": Accepted("1"),
        "idf-requeued": Accepted("6"),
        "idf-waiting": Accepted("9"),
        "idf-nobody": Absent(),
    }


@pytest.mark.parametrize(
    ("burnt", "verdict"),
    [
        ('{"batch":"b","closed_s_ago":0,"begun":[],"answers":[]}', Absent),
        ('{"batch":"b","closed_s_ago":0,"begun":[],"answers":[],"open_s":-9}', Uncertain),
        ('{"batch":"b","closed_s_ago":0,"begun":[],"answers":[],"open_s":-10}', Absent),
        ('{"batch":"b","busy":true}', Uncertain),
        ('{"batch":"other","closed_s_ago":0,"begun":[],"answers":[]}', Unreachable),
        ('{"batch":"b","closed_s_ago":9,"begun":["idf-nobody"],"answers":[]}', Uncertain),
        ('{"batch":"b","closed_s_ago":311,"begun":["idf-nobody"],"answers":[]}', Absent),
        (
            '{"batch":"b","closed_s_ago":9,"begun":["idf-nobody"],"answers":[{"name":"idf-nobody","rc":0,"out":"4"}]}',
            Accepted,
        ),
        (
            '{"batch":"b","closed_s_ago":9,"begun":["idf-nobody"],"answers":[{"name":"idf-nobody","rc":1,"err":'
            '"sbatch: error: Batch job submission failed: Invalid qos specification"}]}',
            Absent,
        ),
        (
            '{"batch":"b","closed_s_ago":9,"begun":["idf-nobody"],"answers":[{"name":"idf-nobody","rc":1,"err":'
            '"sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"}]}',
            Uncertain,
        ),
    ],
)
def test_absence_is_proven_by_the_journal_too(
    recorded: Callable[[str], bytes], burnt: str, verdict: type[object]
) -> None:
    adopt = Adopt([Sent("idf-nobody", "idf001", "b", LONG_AGO)], wait_s=1, settle_s=310)
    said = f"idf001 {burnt}\n".encode() + recorded("look_up")
    assert isinstance(adopt.read(Reply.read(said))["idf-nobody"], verdict)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ((b"idf001|idf-succeeded", b"idf001|idf-other"), Absent),
        ((b"|idf001|", b"|idf002|"), Absent),
        ((b"|/srv/home/idf001|", b"|/tmp|"), Absent),
        ((b'"rows_not_written":0', b'"rows_not_written":1'), Accepted),
        ((b"idf-failed", b"idf-succeeded"), Uncertain),
    ],
)
def test_a_name_can_be_taken_by_another(
    recorded: Callable[[str], bytes], change: tuple[bytes, bytes], verdict: type[object]
) -> None:
    burnt = b'idf001 {"batch":"b","closed_s_ago":0,"begun":[],"answers":[]}\n'
    adopt = Adopt([Sent("idf-succeeded", "idf001", "b", LONG_AGO)], wait_s=1, settle_s=310)
    answer = adopt.read(Reply.read(burnt + recorded("look_up").replace(*change)))["idf-succeeded"]
    assert isinstance(answer, verdict), answer


def test_recorded_answers_of_sbatch(recorded: Callable[[str], bytes]) -> None:
    words = ("accepted", "too-large", "no-partition", "no-such-gpu", "too-much-memory")
    answers = _submit(*words).read(Reply.read(recorded("submit")))
    assert answers["idf-accepted"] == Accepted("10")
    assert {type(answers[f"idf-{word}"]) for word in words[1:]} == {Rejected}
    assert "invalid partition specified: nowhere" in str(answers["idf-no-partition"])


def test_silence_is_uncertain_once_begun(recorded: Callable[[str], bytes]) -> None:
    lines = recorded("submit").splitlines(keepends=True)
    answers = _submit("accepted", "too-large").read(Reply.read(b"".join(lines[:2])))
    assert answers["idf-accepted"] == Accepted("10")
    assert isinstance(answers["idf-too-large"], Uncertain)
    nothing = _submit("accepted").read(Reply.read(b'idf001 {"left":true}\n* {"end":true}\n', b"sudo: no"))
    assert isinstance(nothing["idf-accepted"], Unreachable)
    assert isinstance(_submit("accepted").read(Reply.read(b""))["idf-accepted"], Uncertain)


def test_an_account_answers_for_itself_only() -> None:
    forged = b'idf002 {"begun":true}\nidf002 {"name":"idf-accepted","rc":0,"out":"666"}\nidf002 {"done":true}\n'
    assert isinstance(_submit("accepted").read(Reply.read(forged))["idf-accepted"], Uncertain)


def test_recorded_cancelling(recorded: Callable[[str], bytes]) -> None:
    jobs = [
        Known("a", "idf001", "7", LONG_AGO),
        Known("b", "idf001", "1", LONG_AGO),
        Known("c", "idf003", "9", LONG_AGO),
    ]
    answers = Cancel(jobs).read(Reply.read(recorded("cancel")))
    assert (answers["a"], answers["b"]) == (Accepted("7"), Accepted("1"))
    assert isinstance(answers["c"], Rejected)


def test_a_recorded_site_is_fit_for_use_until_something_is_missing(
    recorded: Callable[[str], bytes], release: str
) -> None:
    said = recorded("check")
    facts = Check().read(Reply.read(said))
    assert (facts.cluster, facts.problems) == ("recorded", ())
    assert release in facts.scheduler
    for setting in (b"gres/gpu", b"disable_token_creation", b"safe", b"jobs,"):
        assert Check().read(Reply.read(said.replace(setting, b""))).problems


def _submit(*words: str) -> Submit:
    specs = [
        JobSpec(name=f"idf-{word}", account="idf001", gpus=1, gpu_type="a100", time_limit_s=60, script=b"true")
        for word in words
    ]
    return Submit("b", specs, parallel=8, timeout_s=1, sbatch_s=1)


@pytest.mark.parametrize(
    ("code", "errors", "verdict"),
    [
        (1, "sbatch: error: Batch job submission failed: Invalid qos specification", Rejected),
        (1, "sbatch: error: try less\nsbatch: error: Batch job submission failed: Unspecified error", Rejected),
        (1, "sbatch: error: Invalid numeric value \"x\" for --gpus.", Rejected),
        (1, f"{FAILED}Unable to contact slurm controller (connect failure)", Unreachable),
        (1, "sbatch: error: Batch job submission failed: System submissions disabled", Unreachable),
        (1, f"sbatch: error: Munge encode failed: Failed to access\n{FAILED}x", Unreachable),
        (1, "sbatch: fatal: Could not establish a configuration source", Unreachable),
        (1, "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", Uncertain),
        (1, "sbatch: error: Batch job submission failed: Unable to contact slurm controller (send failure)", Uncertain),
        (1, "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", Uncertain),
        (1, "sbatch: error: Batch job submission failed: A sentence of a release to come", Uncertain),
        (-9, "", Uncertain),
        (1, "", Uncertain),
        (127, "", Uncertain),
    ],
)  # fmt: skip
def test_what_a_failed_sbatch_proves(code: int, errors: str, verdict: type[object]) -> None:
    assert type(why_not(code, errors)) is verdict


@pytest.mark.parametrize(("out", "answer"), [("12\n", Accepted("12")), ("12;cluster\n", Accepted("12"))])
def test_the_id_of_a_federation(out: str, answer: Accepted) -> None:
    assert submitted({"rc": 0, "out": out}) == answer
    assert isinstance(submitted({"rc": 0, "out": "Submitted batch job 12"}), Uncertain)
    assert isinstance(submitted({"out": "12"}), Uncertain)


@pytest.mark.parametrize(
    ("native", "over", "state"),
    [
        ("CANCELLED by 47001", True, AttemptState.CANCELLED),
        ("CANCELLED+", True, AttemptState.CANCELLED),
        ("DEADLINE", True, AttemptState.CANCELLED),
        ("OUT_OF_MEMORY", True, AttemptState.OUT_OF_MEMORY),
        ("NODE_FAIL", True, AttemptState.NODE_FAILED),
        ("BOOT_FAIL", True, AttemptState.NODE_FAILED),
        ("COMPLETING", False, AttemptState.RUNNING),
        ("SUSPENDED", False, AttemptState.RUNNING),
        ("REQUEUED", False, AttemptState.QUEUED),
        ("REQUEUED", True, AttemptState.PREEMPTED),
        ("EXPEDITING", False, AttemptState.QUEUED),
        ("", False, AttemptState.UNKNOWN),
        ("SOMETHING", True, AttemptState.UNKNOWN),
    ],
)
def test_states(native: str, over: bool, state: AttemptState) -> None:
    assert attempt_state(native, over=over) is state


def test_gpus_are_counted_once() -> None:
    assert parse_tres("billing=4,cpu=4,gres/gpu:a100=4,gres/gpu=4,mem=1G").gpus == 4
    both = parse_tres("cpu=4,gres/gpu:a100=2,gres/gpu:v100=1")
    assert (both.gpus, both.gpu_types) == (3, {"a100": 2, "v100": 1})
    assert parse_tres("cpu=4,mem=1G").gpus is None
    assert parse_tres("").cpus is None


@pytest.mark.parametrize(
    ("text", "mib"),
    [("256M", 256), ("1G", 1024), ("62.50G", 64000), ("1.5T", 1572864), ("1025K", 2), ("7", 7), ("1P", 1 << 30)],
)
def test_memory_is_read_to_the_mib(text: str, mib: int) -> None:
    assert parse_tres(f"cpu=4,mem={text},node=2").memory_mib == mib


def test_what_was_given_is_read_whole() -> None:
    given = parse_tres("billing=4,cpu=4,gres/gpu:a100=2,gres/gpu=2,mem=1G,node=2")
    assert (given.cpus, given.memory_mib, given.nodes) == (4, 1024, 2)
    assert parse_tres("gres/gpu=1") == Tres(1)
    for odd in ("mem=much", "mem=-1M", "mem=1.5.2G", "mem=1E"):
        with pytest.raises(ValueError, match=r"m|1"):
            parse_tres(odd)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node[1-3,7]", ("node1", "node2", "node3", "node7")),
        ("gpu[08-10]-ib,login1", ("gpu08-ib", "gpu09-ib", "gpu10-ib", "login1")),
        ("a,b", ("a", "b")),
        ("None assigned", ()),
        ("n[1-x]", ("n[1-x]",)),
    ],
)
def test_host_lists(text: str, names: tuple[str, ...]) -> None:
    assert host_list(text) == names


def test_a_separator_in_the_last_field_cuts_nothing() -> None:
    fields = "JobArrayID,State,RestartCnt,UserName,SubmitTime,StartTime,EndTime,TimeUsed,TimeLimit"
    fields += ",tres-alloc,Reason,NodeList,WorkDir,Name"
    rows, odd = queue_rows("1|RUNNING|0|u|1|2|N/A|1-02:03:04|UNLIMITED|cpu=1|None|n1|/h|a|b|c\n", fields.split(","))
    assert not odd
    assert (rows[0].name, rows[0].elapsed_s, rows[0].time_limit_s) == ("a|b|c", 93784, UNLIMITED_S)

"""What the proof of isolation makes of what its jobs wrote."""

import re

import pytest

from adapters.slurm import proof
from adapters.slurm.wrapper import batch_script, sbatch_flags
from adapters.upkeep import Severity


def log(**changes: str) -> bytes:
    verdicts = dict.fromkeys(proof.CROSSINGS, "refused") | changes
    lines = [f"idf-proof {verdict} {crossing}" for crossing, verdict in verdicts.items() if verdict != "silent"]
    return "\n".join(["secret-abc", "a profile's greeting", *lines, "idf-proof done", ""]).encode()


def judged(first: bytes, second: bytes) -> tuple[bool | None, dict[str, str]]:
    trials = [proof.Trial.read("idf002", first), proof.Trial.read("idf001", second)]
    proven, found = proof.judge(trials)
    return proven, {one.code: one.sentence for one in found}


def test_all_refused_on_both_sides_is_a_proof() -> None:
    assert judged(log(), log()) == (True, {})


@pytest.mark.parametrize("crossing", proof.CROSSINGS)
def test_a_single_crossing_on_either_side_is_none(crossing: str) -> None:
    for logs in ((log(**{crossing: "open"}), log()), (log(), log(**{crossing: "open"}))):
        proven, found = judged(*logs)
        assert proven is False
        assert proof.CROSSINGS[crossing][0] in found["isolation-broken"]


def test_each_crossing_is_a_finding_with_its_own_remedy() -> None:
    _, found = proof.judge([proof.Trial.read("idf002", log(read_tmp="open", end_job="open"))])
    assert len({one.remedy for one in found}) == 2
    assert {one.severity for one in found} == {Severity.PROBLEM}


@pytest.mark.parametrize("word", ["untried", "silent"])
def test_what_was_not_tried_proves_nothing(word: str) -> None:
    proven, found = judged(log(see_in_accounting=word), log())
    assert proven is None
    assert "see_in_accounting" in found["isolation-not-proven"]


def test_a_crossing_that_was_open_once_is_open() -> None:
    twice = log(read_home="open") + b"idf-proof refused read_home\n"
    assert judged(twice, log())[0] is False


def test_a_program_that_is_missing_is_advice() -> None:
    proven, found = judged(log(log_in="absent"), log())
    assert proven is True
    assert "log_in" in found["isolation-partly-tried"]


def test_a_silent_log_and_a_forged_name_prove_nothing() -> None:
    assert judged(b"", log())[0] is None
    assert proof.Trial.read("idf001", b"idf-proof refused everything\nidf-proof\n").verdicts == {}


def test_a_victim_is_known_by_its_own_words() -> None:
    ready = b"hello\nidf-proof ready node1 abc idf001 /home/idf001 idf-proof-abc 17 4242\n"
    assert proof.victim(ready) == proof.Victim("node1", "abc idf001 /home/idf001 idf-proof-abc 17 4242")
    for wrong in (b"", b"idf-proof ready node1\n", ready.replace(b"node1", b"--x;y")):
        assert proof.victim(wrong) is None
    assert not proof.is_done(ready)
    assert proof.is_done(log())


def test_every_crossing_of_the_script_is_known_and_tried() -> None:
    script = proof.SCRIPT.read_text()
    defined = set(re.findall(r"^([a-z]+(?:_[a-z]+)+)\(\)", script, re.MULTILINE))
    tried = {name for name in proof.CROSSINGS if re.search(rf"(cross .*|for crossing in .*|    .*)\b{name}\b", script)}
    assert defined == set(proof.CROSSINGS) == tried


def test_its_jobs_can_be_sent() -> None:
    job = proof.spec("idf001", "abc", "theirs idf002 /home/idf002 idf-proof-x 1 2")
    assert "theirs" not in batch_script(job), "what one aims at goes as data"
    assert "--job-name=idf-proof-abc" in sbatch_flags(job)


def test_a_node_without_a_gpu_to_try_is_told() -> None:
    proven, found = judged(log(open_gpu="absent"), log())
    assert proven is True
    assert "open_gpu" in found["isolation-partly-tried"]

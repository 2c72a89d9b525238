"""Each rule of an audit, on what a real site said, changed in one place."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.slurm.findings import Facts, findings
from adapters.upkeep import Expected, Severity

RECORDED = Path(__file__).parents[1] / "recordings/slurm/22.05/facts.txt"
EXPECTED = Expected(
    accounts=True,
    pool=["idf001", "idf002", "idf003"],
    free=["idf001", "idf002", "idf003"],
    gpu_types=["a100"],
    partition=None,
    time_limit_s_max=86_400,
)
CLEAN = {"use-not-counted", "processes-escape", "gpus-not-constrained"}
"""Advice that a test cluster gets: it has neither cgroups nor priorities."""


def said() -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(RECORDED.read_text().split("\n")[0].partition(" ")[2])
    return answer


def judged(answer: dict[str, Any], skew_s: float = 0.0, **changes: Any) -> dict[str, tuple[Severity, str, str]]:
    facts = Facts(answer, replace(EXPECTED, **changes), skew_s, 0.5)
    return {one.code: (one.severity, one.sentence, one.remedy) for one in findings(facts)}


def configured(**settings: str) -> dict[str, Any]:
    """The recorded site with settings of slurm.conf changed; those that it has not are added."""
    answer = said()
    lines = answer["configuration"]["out"].splitlines()
    kept = [line for line in lines if line.split("=")[0].strip() not in settings]
    answer["configuration"]["out"] = "\n".join([*kept, *(f"{key} = {value}" for key, value in settings.items())])
    return answer


def output(what: str, text: str, rc: int = 0) -> dict[str, Any]:
    return {**said(), what: {"rc": rc, "out": text, "err": ""}}


def partition(old: str, new: str) -> dict[str, Any]:
    text = said()["partitions"]["out"]
    assert old in text
    return output("partitions", text.replace(old, new))


def test_a_site_that_is_as_it_should_be_has_no_problem() -> None:
    found = judged(said())
    assert set(found) == CLEAN
    assert {severity for severity, _, _ in found.values()} == {Severity.ADVICE}


PROBLEMS: dict[str, dict[str, Any]] = {
    "controller-silent": output("configuration", "", 1),
    "database-silent": output("database", "", 1),
    "no-gpu": output("nodes", "gpu*|node1|(null)\n"),
    "release-too-old": output("release", "slurm 21.08.8\n"),
    "gpus-not-accounted": configured(AccountingStorageTRES="cpu,mem"),
    "no-database": configured(AccountingStorageType="accounting_storage/none"),
    "limits-not-enforced": configured(AccountingStorageEnforce="associations,limits"),
    "database-behind": {**said(), "rows_not_written": 10_000},
    "times-not-in-seconds": output("accounting", "12|2026-11-23T10:00:00\n"),
    "sbatch-slow": {**said(), "sbatch_s": [0.1, 20.0, 16.0]},
    "partition-missing": partition("Default=YES", "Default=NO"),
    "partition-down": partition("State=UP", "State=DOWN"),
    "time-limit-too-long": partition("MaxTime=1-00:00:00", "MaxTime=12:00:00"),
    "gpu-type-missing": output("nodes", "gpu*|node1|gpu:h100:4\nother|node2|gpu:a100:4\n"),
    "accounting-keeps-secrets": configured(AccountingStoreFlags="job_comment,job_env"),
    "projects-see-each-other": configured(PrivateData="jobs,usage"),
    "tokens-by-anyone": configured(AuthAltParameters="jwt_key=/x"),
    "login-too-powerful": output("me", "Operator|idf\n"),
    "not-coordinator": output("me", "None|\n"),
    "account-unknown": {**said(), "homes": {"idf001": {"mode": 0o700}, "idf002": {"mode": 0o700}}},
    "account-incomplete": {**said(), "homes": {**said()["homes"], "idf002": {"missing": "account"}}},
    "home-open": {**said(), "homes": {**said()["homes"], "idf003": {"mode": 0o755}}},
    "cannot-wipe": {**said(), "wipes": False},
}
ADVICE: dict[str, dict[str, Any]] = {
    "release-unknown": output("release", "slurm 27.05.0\n"),
    "database-behind": {**said(), "rows_not_written": 100},
    "database-lag-unknown": {**said(), "rows_not_written": -1},
    "time-zone-other": {**said(), "zone": "Asia/Tokyo"},
    "jobs-forgotten-early": configured(MinJobAge="10 sec"),
    "requeue-by-default": configured(JobRequeue="1"),
    "preemption-requeues": configured(PreemptMode="GANG,REQUEUE"),
    "sbatch-slow": {**said(), "sbatch_s": [2.5, 3.0, 0.1]},
    "whole-nodes": partition("OverSubscribe=NO", "OverSubscribe=EXCLUSIVE"),
}


@pytest.mark.parametrize("code", PROBLEMS)
def test_each_problem_is_found_and_says_what_to_change(code: str) -> None:
    severity, sentence, remedy = judged(PROBLEMS[code])[code]
    assert severity is Severity.PROBLEM
    assert sentence
    assert remedy


@pytest.mark.parametrize("code", ADVICE)
def test_each_piece_of_advice_is_given_and_is_no_problem(code: str) -> None:
    found = judged(ADVICE[code])
    assert set(found) == CLEAN | {code}
    assert found[code][0] is Severity.ADVICE


@pytest.mark.parametrize(
    ("skew_s", "severity"),
    [(0.0, None), (5.4, None), (-7.0, Severity.ADVICE), (59.0, Severity.ADVICE), (61.0, Severity.PROBLEM),
     (-3600.0, Severity.PROBLEM)],
)  # fmt: skip
def test_a_skewed_clock_is_measured_beyond_what_the_network_explains(skew_s: float, severity: Severity | None) -> None:
    found = judged(said(), skew_s).get("clock-skewed")
    assert (found and found[0]) == severity


def test_which_way_the_clock_is_off_is_said() -> None:
    assert "3600 s behind the broker's" in judged(said(), -3600.5)["clock-skewed"][1]
    assert "60 s ahead of the broker's" in judged(said(), 60.5)["clock-skewed"][1]


def test_cgroups_and_priorities_leave_nothing_to_advise() -> None:
    better = configured(ProctrackType="proctrack/cgroup", PriorityType="priority/multifactor", ConstrainDevices="yes")
    assert judged(better) == {}


def test_a_named_partition_is_looked_for_by_its_name() -> None:
    assert "there is no partition nowhere" in judged(said(), partition="nowhere")["partition-missing"][1]
    assert set(judged(said(), partition="gpu")) == CLEAN


def test_a_longer_limit_than_the_partitions_says_what_to_write() -> None:
    _, sentence, remedy = judged(said(), time_limit_s_max=172_800)["time-limit-too-long"]
    assert "allows jobs of 2880 min, partition gpu at most 1440" in sentence
    assert "time_limit_s_max = 86400" in remedy
    assert set(judged(partition("MaxTime=1-00:00:00", "MaxTime=UNLIMITED"), time_limit_s_max=10**7)) == CLEAN


def test_a_site_of_one_account_is_told_so_and_asked_no_more() -> None:
    open_to_all = configured(PrivateData="none", AuthAltParameters="")
    found = judged(open_to_all, accounts=False, pool=["me"], free=[])
    assert found["account-shared"][0] is Severity.ADVICE
    assert not [code for code, (severity, _, _) in found.items() if severity is Severity.PROBLEM]


@pytest.mark.parametrize(
    ("left", "found"),
    [
        ({"free_bytes": 5 << 20, "free_files": 10**6}, True),
        ({"free_bytes": 1 << 40, "free_files": 12}, True),
        ({"free_bytes": 1 << 40, "free_files": -1}, False),
        ({"free_bytes": 1 << 40, "free_files": 10**6}, False),
    ],
)
def test_a_home_without_room_for_logs_is_a_problem(left: dict[str, int], found: bool) -> None:
    answer = said()
    answer["homes"]["idf002"] = {"mode": 0o700, **left}
    judgement = judged(answer)
    assert ("log-folder-full" in judgement) is found
    if found:
        severity, sentence, _ = judgement["log-folder-full"]
        assert severity is Severity.PROBLEM
        assert sentence.endswith("in the home of idf002")

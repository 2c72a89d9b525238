"""Charging rules and jobs without GPU, as they are typed and shown."""

import json
from typing import Any

import pytest
from unit.cli.conftest import Broker, job

from cli.exits import Exit
from cli.units import job_size_text, memory_text

RULE = {
    "id": "rul-1",
    "site": "jean-zay",
    "partition": "gpu",
    "valid_from": "2025-12-31T23:00:00Z",
    "cpus_per_gpu": 10,
    "memory_mib_per_gpu": 92160,
    "whole_nodes": False,
    "gpus_per_node": 4,
    "cpus_per_node": 40,
    "memory_mib_per_node": 368640,
    "cpu_weight_thousandths": 50,
}
PLAN = {
    "site": "jean-zay",
    "project": "vision",
    "award": "w1",
    "gpu_class": "a100-80",
    "gpus": 2,
    "cpus": 24,
    "memory_mib": None,
    "nodes": 1,
    "exclusive": False,
    "time_limit_s": 3600,
    "held_credits": 17_568_000,
    "available_credits": 36_000_000,
    "array": None,
    "tasks": 1,
    "sum": ["2 GPUs", "24 CPUs at 10 a GPU count as 2.4", "2.4 × weight 2 × (3600 + 60) s = 4.88 h"],
    "notices": [],
    "expected_start_at": None,
    "expected_start_unknown": "the project has no account there yet",
    "sites": [],
}
OFFER = {
    "site": "jean-zay", "kind": "slurm", "chosen": True, "gpu_class": "a100-80", "contract_kind": "allocated",
    "held_credits": 17_568_000, "price_micro_euros": 4_880_000, "expected_start_at": None,
    "expected_start_unknown": "it was not asked", "code": None, "detail": None, "remedy": None,
}  # fmt: skip
REFUSED = {
    **dict.fromkeys(OFFER), "site": "pool", "kind": "k8s", "chosen": False, "code": "placement-refused",
    "detail": "health data \x1b[2J goes elsewhere", "remedy": "choose another site",
}  # fmt: skip


def test_a_rule_is_sent_and_told(run: Any, broker: Broker) -> None:
    broker.answers["POST", "/v1/charging-rules"] = (201, RULE)
    words = (
        "--partition gpu --from 2026-01-01 --cpus-per-gpu 10 --memory-per-gpu 90G --gpus-per-node 4 --cpu-weight 0.05"
    )
    ran = run("rule", "add", "jean-zay", *words.split())
    assert ran.out == (
        "partition gpu of site jean-zay counts from 2026-01-01 on: GPUs at 10 CPUs, 90 GiB each; "
        "a whole node of 4 GPUs, 40 CPUs, 360 GiB; weight 0.05 a CPU\n"
    )
    assert broker.posted("/v1/charging-rules") == [
        {
            "site": "jean-zay", "partition": "gpu", "valid_from": "2026-01-01", "whole_nodes": False,
            "cpus_per_gpu": 10, "memory_mib_per_gpu": 92160, "gpus_per_node": 4, "cpu_weight_thousandths": 50,
        }
    ]  # fmt: skip
    assert json.loads(run("rule", "add", "jean-zay", "--memory-per-node", "1G", "--json").out) == RULE


def test_rules_are_listed_with_those_of_the_past(run: Any, broker: Broker) -> None:
    none = dict.fromkeys((key for key in RULE if "per_" in key or "weight" in key), None)
    plain = {**RULE, **none, "partition": ""}
    whole = {**RULE, **none, "whole_nodes": True, "cpus_per_node": 64}
    broker.answers["GET", "/v1/charging-rules"] = (200, {"items": [RULE, plain, whole], "next_cursor": None})
    lines = run("rule", "list", "jean-zay").out.splitlines()
    assert "GPUs at 10 CPUs, 90 GiB each" in lines[1]
    assert "2026-01-01" in lines[1]
    assert "(others)" in lines[2]
    assert "GPUs only" in lines[2]
    assert "jobs without GPU refused" in lines[2]
    assert "always whole nodes of 64 CPUs" in lines[3]
    assert json.loads(run("rule", "list", "--json").out) == [RULE, plain, whole]


@pytest.mark.parametrize("words", [["--cpu-weight", "0.0005"], ["--memory-per-gpu", "much"], ["--from", "soon"]])
def test_figures_that_are_not_understood(run: Any, words: list[str]) -> None:
    assert run("rule", "add", "jean-zay", *words).code == Exit.USAGE


def test_a_dry_run_shows_the_sum(run: Any, broker: Broker) -> None:
    broker.answers["POST", "/v1/jobs/plan"] = (200, PLAN)
    ran = run("submit", "--dry-run", "--gpus", "2", "--cpus-per-gpu", "12", "--", "true")
    assert ran.code == Exit.OK, ran.err
    assert ran.out.splitlines() == [
        "would run 2 x a100-80 at jean-zay for at most 1:00:00",
        "would hold 4.88 h of award w1 of project vision, leaving 5.12 h",
        "counted:  2 GPUs",
        "          24 CPUs at 10 a GPU count as 2.4",
        "          2.4 × weight 2 × (3600 + 60) s = 4.88 h",
        "would start: unknown, the project has no account there yet",
    ]
    assert json.loads(run("submit", "--dry-run", "--json", "--", "true").out)["sum"] == PLAN["sum"]


def test_a_dry_run_shows_every_site_and_why_it_refuses(run: Any, broker: Broker) -> None:
    broker.answers["POST", "/v1/jobs/plan"] = (200, {**PLAN, "sites": [OFFER, REFUSED]})
    head, chosen, refused, why = run("submit", "--dry-run", "--", "true").out.splitlines()[-4:]
    assert head.split() == ["SITE", "KIND", "CLASS", "HOURS", "HOLDS", "WORTH", "STARTS", "VERDICT"]
    wanted = ["jean-zay", "slurm", "a100-80", "free", "4.88", "h", "4.88", "€", "unknown", "chosen"]
    assert chosen.split() == wanted
    assert refused.split() == ["pool", "k8s", "-", "-", "-", "-", "-", "refused:", "placement-refused"]
    assert why == "pool: health data \\x1b[2J goes elsewhere; choose another site"


def test_the_sites_are_shown_when_all_of_them_refuse(run: Any, broker: Broker) -> None:
    broker.refuse("POST", "/v1/jobs/plan", 422, "placement-refused", "no site takes it")
    broker.answers["POST", "/v1/jobs/plan"][1]["sites"] = [REFUSED]
    ran = run("submit", "--dry-run", "--", "true")
    assert ran.code == Exit.REFUSED
    assert "pool: health data" in ran.out
    assert "no site takes it" in ran.err
    assert run("submit", "--dry-run", "--json", "--", "true").out == ""


def test_a_certification_is_entered_confirmed_and_withdrawn(run: Any, broker: Broker) -> None:
    row = {
        "id": "crt-1", "site": "pool", "service": "Bare \x1b[2JMetal", "scheme": "hds", "version": "2",
        "scope": ["computing"], "document": "GED 1", "start_at": "2025-12-31T23:00:00Z",
        "end_at": "2028-12-31T23:00:00Z", "state": "entered",
    }  # fmt: skip
    broker.answers["POST", "/v1/certifications"] = (201, row)
    broker.answers["POST", "/v1/certifications/crt-1/confirm"] = (200, {**row, "state": "valid"})
    broker.answers["POST", "/v1/certifications/crt-1/withdraw"] = (200, {**row, "state": "withdrawn"})
    broker.answers["GET", "/v1/certifications"] = (200, {"items": [row], "next_cursor": None})
    words = ["--service", "Bare Metal", "--scope", "computing", "--document", "GED 1"]
    ran = run("certification", "add", "pool", "hds", "2", *words, "--from", "2026-01-01", "--to", "2028-12-31")
    assert ran.out.endswith(": entered; it counts once another operator confirms it\n")
    assert "\x1b" not in ran.out
    days = {"start_on": "2026-01-01", "end_on": "2028-12-31"}
    sent = {"site": "pool", "scheme": "hds", "version": "2", "service": "Bare Metal", "scope": ["computing"], **days}
    assert broker.posted("/v1/certifications") == [{**sent, "document": "GED 1"}]
    assert run("certification", "confirm", "crt-1").out.endswith(": valid\n")
    assert run("certification", "withdraw", "crt-1", "--reason", "suspended").out.endswith(": withdrawn\n")
    listed = run("certification", "list", "--site", "pool").out.splitlines()[1]
    assert "2026-01-01" in listed
    assert "2028-12-31" in listed


def test_jobs_without_gpu_and_whole_nodes_are_sent(run: Any, broker: Broker) -> None:
    run("submit", "--gpus", "0", "--cpus", "8", "--exclusive", "--", "true")
    sent = broker.posted("/v1/jobs")[0]
    assert {key: sent[key] for key in ("gpus", "cpus", "exclusive")} == {"gpus": 0, "cpus": 8, "exclusive": True}
    run("submit", "--", "true")
    assert "exclusive" not in broker.posted("/v1/jobs")[1]
    assert run("submit", "--try", "--exclusive", "--", "true").code == Exit.USAGE


def test_a_size_in_words() -> None:
    assert job_size_text(job()) == "1 x a100-80"
    assert job_size_text(job(exclusive=True)) == "1 x a100-80, whole nodes"
    assert job_size_text(job(gpus=0, gpu_class="cpu", cpus=8)) == "8 CPUs"
    assert job_size_text(job(gpus=0, gpu_class="cpu", cpus=1)) == "1 CPU"
    assert job_size_text(job(gpus=0, gpu_class="cpu", exclusive=True)) == "whole nodes"
    assert job_size_text(job(gpus=0, gpu_class="cpu")) == "no GPU"
    assert (memory_text(512), memory_text(2048)) == ("512 MiB", "2 GiB")


def test_an_attempt_says_what_it_counted_as(run: Any, broker: Broker) -> None:
    attempt = {
        "source_key": "c/1/2", "state": "succeeded", "started_at": None, "ended_at": None, "elapsed_s": 60, "gpus": 2,
        "cpus": 24, "memory_mib": 1, "nodes": 1, "exclusive": False, "gpu_class": "a100-80",
        "rate_credits_per_s": 4800, "weight_thousandths": 2000, "charged_credits": 288_000,
        "value_micro_euros": 94_000,
    }  # fmt: skip
    without = {**attempt, "gpus": 0, "gpu_class": "cpu", "weight_thousandths": 50, "rate_credits_per_s": 1200}
    events = [{"at": "2026-11-23T10:00:00Z", "state": "held", "cause": "submitted"}]
    broker.jobs = [job(events=events, usage=[attempt, {**attempt, "rate_credits_per_s": 4000}, without])]
    lines = run("show", "j1").out.splitlines()
    assert "  1. succeeded: 2 x a100-80 for 0:01:00, weight 2, counted as 2.4 GPUs -> 0.08 h, 0.09 €" in lines
    assert "  2. succeeded: 2 x a100-80 for 0:01:00, weight 2 -> 0.08 h, 0.09 €" in lines
    assert "  3. succeeded: 24 CPUs for 0:01:00, weight 0.05 -> 0.08 h, 0.09 €" in lines

"""What an operator types about sites."""

import json
from pathlib import Path
from typing import Any

from unit.cli.conftest import NOW, SITE, Broker

from cli.exits import Exit

FINDINGS = [
    {"code": "sbatch-slow", "severity": "advice", "sentence": "sbatch takes 3.0 s", "remedy": "see sdiag"},
    {"code": "gpus-not-accounted", "severity": "problem", "sentence": "GPUs do \x1b[2J not", "remedy": "add gres/gpu"},
]
AUDIT = {**SITE, "findings": FINDINGS, "proven_at": NOW}


def test_enrolling_tells_each_finding_problems_first_and_exits_3(run: Any, broker: Broker, tmp_path: Path) -> None:
    broker.answers["POST", "/v1/sites"] = (201, AUDIT)
    file = tmp_path / "s.toml"
    file.write_text('name = "jz"\n')
    ran = run("site", "enrol", str(file))
    assert ran.code == Exit.REFUSED
    assert "site jean-zay is enrolled, slurm 22.05, isolation accounts, proven on" in ran.out
    doing, problem, remedy, advice = ran.err.splitlines()[:4]
    assert doing.startswith("auditing jz: ")
    assert problem.startswith("problem: GPUs do ")
    assert problem.endswith("[gpus-not-accounted]")
    assert "\x1b" not in ran.err
    assert remedy.strip() == "what to change: add gres/gpu"
    assert advice == "advice: sbatch takes 3.0 s [sbatch-slow]"
    assert ran.err.splitlines()[-1].startswith("then: idf-compute site doctor jean-zay; or site set")


def test_a_doctor_without_problems_exits_0(run: Any, broker: Broker) -> None:
    broker.answers["POST", "/v1/sites/jean-zay/check"] = (200, {**AUDIT, "findings": FINDINGS[:1]})
    assert run("site", "doctor", "jean-zay").code == Exit.OK
    broker.answers["POST", "/v1/sites/jean-zay/check"] = (200, AUDIT)
    ran = run("site", "doctor", "jean-zay", "--json")
    assert (ran.code, ran.json["findings"]) == (Exit.REFUSED, FINDINGS)


def test_the_last_audit_is_shown_without_asking_the_site(run: Any, broker: Broker) -> None:
    broker.answers["GET", "/v1/sites/jean-zay/audit"] = (200, {**AUDIT, "proven_at": None})
    ran = run("site", "doctor", "jean-zay", "--last")
    assert ran.code == Exit.REFUSED
    assert "auditing" not in ran.err
    assert "proven" not in ran.out
    assert [call.method for call in broker.calls] == ["GET"]


def test_accounts_are_listed_with_what_is_wrong(run: Any, broker: Broker) -> None:
    row = {
        "account": "idf001", "project": "vision", "state": "leaving", "taken_at": NOW, "left_at": NOW,
        "trouble": "something in /tmp cannot be removed", "gpu_minutes_max": 90, "limited_at": NOW,
    }  # fmt: skip
    rows = [row, {**row, "account": "idf002", "gpu_minutes_max": None, "trouble": None}]
    broker.answers["GET", "/v1/sites/jean-zay/accounts"] = (200, {"items": rows, "next_cursor": None})
    ran = run("site", "accounts", "jean-zay")
    assert ran.code == Exit.OK
    assert "1.5" in ran.out
    assert "something in /tmp" in ran.out
    assert run("site", "accounts", "jean-zay", "--json").json == rows


def test_a_site_is_changed_under_the_name_in_its_file(run: Any, broker: Broker, tmp_path: Path) -> None:
    broker.answers["POST", "/v1/sites/jean-zay/settings"] = (200, {**AUDIT, "findings": []})
    file = tmp_path / "s.toml"
    file.write_text('name = "jean-zay"\nport = 2222\n')
    ran = run("site", "set", str(file))
    assert ran.code == Exit.OK
    assert json.loads(broker.calls[-1].body) == {"name": "jean-zay", "port": 2222}
    assert "site jean-zay is changed" in ran.out
    file.write_text("name = 7\n")
    assert run("site", "set", str(file)).code == Exit.USAGE

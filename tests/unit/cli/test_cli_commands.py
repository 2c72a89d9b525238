"""The commands against a small broker that holds the contract."""

import hashlib
import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from unit.cli.conftest import TOKEN, Broker, Ran, job

from cli import config, wire
from cli.exits import Exit

SCRIPT = "#!/bin/bash\n#SBATCH --job-name=t --time=30 --gres=gpu:v100:2\nhostname\n"


@pytest.fixture
def script(tmp_path: Path) -> str:
    file = tmp_path / "train.sbatch"
    file.write_text(SCRIPT)
    return str(file)


def test_submit_takes_over_the_script_and_says_so(run: Any, broker: Broker, script: str) -> None:
    ran: Ran = run("submit", "--project", "vision", "--env", "A=b=c", script, "--epochs", "3", "$(x)|'\n\"")
    assert ran.code == 0
    assert broker.posted("/v1/jobs") == [
        {
            "name": "t",
            "time_limit_s": 1800,
            "project": "vision",
            "environment": {"A": "b=c"},
            "gpus": 2,
            "gpu_class": "v100-32",
            "script": SCRIPT,
            "arguments": ["--epochs", "3", "$(x)|'\n\""],
        }
    ]
    assert ran.err.splitlines()[0] == ("taken over from train.sbatch: --job-name=t --time=30 --gres=gpu:v100:2")
    assert ran.out.startswith("job j9: ")


def test_submit_a_command(run: Any, broker: Broker) -> None:
    assert run("submit", "--gpus", "2", "--json", "--", "python", "train.py", "--", "--json").json["id"] == "j9"
    assert broker.posted("/v1/jobs")[0] == {
        "name": "python",
        "gpus": 2,
        "arguments": ["python", "train.py", "--", "--json"],
    }


def test_submit_try_is_ten_minutes_on_the_smallest_gpu(run: Any, broker: Broker, script: str) -> None:
    assert run("submit", "--try", script).code == 0
    body = broker.posted("/v1/jobs")[0]
    assert {"gpus": 1, "nodes": 1, "time_limit_s": 600, "smallest_gpu": True}.items() <= body.items()
    assert "gpu_class" not in body
    assert run("submit", "--try", "--gpus", "2", script).code == Exit.USAGE


def test_an_option_after_the_script_goes_to_it_and_that_is_said(run: Any, script: str) -> None:
    assert "--follow stands after the script" in run("submit", script, "--follow").err


def test_submit_sends_a_folder_once(run: Any, broker: Broker, script: str, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "x.py").write_text("1")
    first = run("submit", "--dir", str(tmp_path / "code"), script)
    second = run("submit", "--dir", str(tmp_path / "code"), script)
    assert "sending" in first.err
    assert "has it already" in second.err
    assert [call.method for call in broker.calls].count("PUT") == 1
    digest = broker.posted("/v1/jobs")[1]["snapshot"]
    assert hashlib.sha256(broker.snapshots[digest]).hexdigest() == digest


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"#!\x00ELF", "not a text"),
        (b"\x7fELF\x02\x00", "not a text"),
        (b"#!/bin/sh\n\xff\n", "not UTF-8"),
        (b"#!/bin/sh\r\nls\r\n", "DOS"),
        (b"import os\n", "begin with #!"),
        (b"#!/bin/sh\n" + b"x" * 2**20, "larger than 1 MiB"),
    ],
)
def test_what_is_no_script_is_one_sentence(run: Any, tmp_path: Path, content: bytes, sentence: str) -> None:
    file = tmp_path / "s"
    file.write_bytes(content)
    ran = run("submit", str(file))
    assert ran.code == Exit.USAGE
    assert sentence in ran.err.splitlines()[0]
    assert len(ran.err.splitlines()) <= 2


@pytest.mark.parametrize("path", ["missing.sh", ".", "a\nb\x1b[2J"])
def test_a_missing_script(run: Any, path: str) -> None:
    ran = run("submit", path)
    assert ran.code == Exit.USAGE
    assert "\x1b" not in ran.err
    assert len(ran.err.splitlines()) == 1


def test_follow_shows_the_log_and_exits_with_the_outcome(run: Any, broker: Broker) -> None:
    broker.jobs = [job(id="j9", state="out_of_memory", exit_code=137, charged_credits=24_000)]
    broker.log = [
        ("queued", b""),
        ("running", b"one\n\xc3"),
        ("running", b"\xa9\x1b[2J\n"),
        ("out_of_memory", b"last"),
        ("out_of_memory", b""),
    ]
    ran = run("submit", "--follow", "--", "x")
    assert ran.out == "one\né\\x1b[2J\nlast"
    assert ran.code == Exit.JOB_OUT_OF_MEMORY
    assert "job j9 is queued" in ran.err
    assert "charged 0.0067 h" in ran.err


def test_follow_goes_on_when_the_broker_was_away(run: Any, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.follow.AWAY_PAUSE_S", 0.01)
    monkeypatch.setattr("cli.wire.RETRY_PAUSES_S", ())
    broker.jobs = [job(id="j1", state="succeeded")]
    broker.log = [("running", b"a"), ("succeeded", b"b"), ("succeeded", b"")]
    broker.drop = 3
    ran = run("logs", "-f", "j1")
    assert (ran.code, ran.out) == (0, "ab")
    assert ran.err.count("trying again") == 1


def test_ctrl_c_leaves_the_job_running_and_says_how_to_end_it(
    run: Any, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.client.Client.log", interrupted)
    ran = run("submit", "--follow", "--", "x")
    assert ran.code == Exit.INTERRUPTED
    assert "idf-compute cancel j9" in ran.err


def test_wait_prints_the_end_as_json(run: Any, broker: Broker) -> None:
    broker.jobs = [job(id="j9", state="timed_out", charged_credits=5)]
    ran = run("submit", "--wait", "--json", "--", "x")
    assert ran.code == Exit.JOB_TIMED_OUT
    assert ran.json["state"] == "timed_out"


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "timed_out", "node_failed", "preempted", "lost"])
def test_each_outcome_has_its_own_exit_code(run: Any, broker: Broker, state: str) -> None:
    broker.jobs, broker.log = [job(state=state)], [(state, b"")]
    codes = {
        "succeeded": 0,
        "failed": 10,
        "cancelled": 11,
        "timed_out": 12,
        "node_failed": 14,
        "preempted": 15,
    }
    assert run("logs", "-f", "j1").code == codes.get(state, 16)


def test_a_retry_carries_the_same_key_and_sends_nothing_else(run: Any, broker: Broker) -> None:
    broker.drop = 2
    assert run("submit", "--", "x").code == 0
    posts = [call for call in broker.calls if call.method == "POST"]
    assert len(posts) == 3
    assert len({call.headers["Idempotency-Key"] for call in posts}) == 1
    run("submit", "--", "x")
    assert broker.calls[-1].headers["Idempotency-Key"] != posts[0].headers["Idempotency-Key"]


def test_a_broker_that_is_down_is_one_line_within_two_seconds(run: Any) -> None:
    config.save(config.Config(url="http://127.0.0.1:9", token=TOKEN))
    begun = time.monotonic()
    ran = run("jobs")
    assert time.monotonic() - begun < 2.5
    assert ran.code == Exit.UNREACHABLE
    assert "cannot be reached: it refuses connections" in ran.err.splitlines()[0]


def test_what_answers_is_not_the_broker(run: Any, broker: Broker) -> None:
    broker.answers["GET", "/v1/jobs"] = (200, (b"<html>welcome to the hotel</html>", {}))
    assert run("jobs").code == Exit.UNREACHABLE
    broker.answers["GET", "/v1/jobs"] = (302, (b"", {"Location": "http://127.0.0.1:1/"}))
    assert run("jobs").code == Exit.UNEXPECTED
    broker.answers["GET", "/v1/jobs"] = (503, (b"busy", {}))
    assert run("jobs").code == Exit.UNREACHABLE


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (401, "unauthenticated", Exit.FORBIDDEN),
        (403, "forbidden", Exit.FORBIDDEN),
        (404, "not-found", Exit.NOT_FOUND),
        (409, "award-too-small", Exit.REFUSED),
        (500, "internal", Exit.UNEXPECTED),
    ],
)
def test_refusals(run: Any, broker: Broker, status: int, code: str, exit_code: Exit) -> None:
    broker.refuse("POST", "/v1/jobs", status, code, "the award holds 1 h\x1b[31m", "ask for less")
    ran = run("submit", "--", "x")
    assert ran.code == exit_code
    assert ran.err == "idf-compute: the award holds 1 h\\x1b[31m\n  ask for less\n"
    ran = run("submit", "--json", "--", "x")
    assert (ran.code, ran.out) == (exit_code, "")
    assert f'"code": "{code}"' in ran.err


def test_jobs_follow_the_pages_up_to_the_limit(run: Any, broker: Broker) -> None:
    broker.jobs = [job(id=f"j{number}") for number in range(250)]
    assert len(run("jobs", "--json", "--all").json) == 250
    ran = run("jobs", "-n", "120", "--state=running", "--project", "vision")
    assert len(ran.out.splitlines()) == 121
    assert "more with --all" in ran.err
    assert broker.calls[-1].query == {"project": "vision", "state": "running", "limit": "20", "cursor": "100"}
    assert run("jobs", "--state", "happy").code == Exit.USAGE


def test_show_draws_the_timeline(run: Any, broker: Broker) -> None:
    events = [
        {"at": "2026-11-23T10:00:00Z", "state": "held", "cause": "submitted"},
        {"at": "2026-11-23T10:01:30Z", "state": "queued", "cause": "as \x1b[1m17"},
    ]
    reason = "(Priority)"
    waiting = job(state="queued", started_at=None, reason=reason, name="x [/x]", events=events, notices=["one hour"])
    broker.jobs = [waiting]
    out = run("show", "j1").out
    assert "waits for  (Priority)" in out
    assert "o held             0:01:30  submitted" in out
    assert "> queued                    as \\x1b[1m17" in out
    assert "x [/x]" in out
    assert "notice: one hour" in out
    assert "nothing charged yet" in out


def test_logs(run: Any, broker: Broker) -> None:
    broker.log = [("running", b"a\x1b[1m\xff\n"), ("running", b"")]
    assert run("logs", "j1", "--offset", "5").out == "a\\x1b[1m\\xff\n"
    assert broker.calls[-2].query["offset"] == "5"
    broker.log = [("running", b"a\x1b[1m\n"), ("running", b"")]
    assert run("logs", "--raw", "j1").out == "a\x1b[1m\n"
    broker.log = [("running", b"ab"), ("running", b"")]
    assert run("logs", "--json", "j1").json["next_offset"] == 2


def test_cancel_goes_on_after_one_that_fails(run: Any, broker: Broker) -> None:
    broker.answers["POST", "/v1/jobs/j1/cancel"] = (200, job(state="succeeded"))
    ran = run("cancel", "none", "j1")
    assert ran.code == Exit.NOT_FOUND
    assert "had ended already: succeeded" in ran.out


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a?b", "%2e%2e"])
def test_a_name_cannot_mean_another_path(run: Any, broker: Broker, name: str) -> None:
    assert run("show", name).code == Exit.NOT_FOUND
    assert all(call.path.count("/") == 3 for call in broker.calls)


def test_quota_is_shown_in_hours_of_each_class(run: Any) -> None:
    out = run("quota").out
    assert "vision (pack-ia), award w1, 2026-01-01 to 2026-06-30" in out
    assert "99 h left of 100 h" in out
    assert "24 h h100-80 or 99 h v100-32" in out
    assert "\n  at 12 h a day the budget runs out on 2026-01-09\n" in out


def test_report(run: Any, broker: Broker) -> None:
    row = {"jobs": 1, "attempts": 2, "gpu_seconds": 5400, "charged_credits": 5_400_000, "overrun_credits": 0}
    row |= {"refunds": 1, "refunded_credits": 3_600_000, "value_micro_euros": 7_050_000}
    row |= {"region_micro_euros": 3_525_000, "company_micro_euros": 3_525_000, "partner_micro_euros": 0}
    row |= {"unvalued_attempts": 1}
    row |= {"refunded_value_micro_euros": None, "refunded_company_micro_euros": None, "unvalued_refunds": 1}
    rows = [{"key": "=cmd|x", **row}]
    answer = {
        "by": "project",
        "from_on": "2026-01-01",
        "to_on": "2026-01-31",
        "rows": rows,
        "gpu_seconds": 5400,
        "charged_credits": 5_400_000,
        "overrun_credits": 0,
        "refunded_credits": 3_600_000,
        "ledger_credits": 5_400_000,
        "ledger_refunded_credits": 3_600_000,
        "agrees": True,
    }
    broker.answers["GET", "/v1/reports/gpu"] = (200, answer)
    ran = run("report", "gpu", "--from", "2026-01-01", "--to", "2026-01-31", "--csv")
    assert ran.out == (
        "project,jobs,attempts,gpu_seconds,charged_credits,overrun_credits,refunds,refunded_credits,value_micro_euros,"
        "region_micro_euros,company_micro_euros,partner_micro_euros,unvalued_attempts,refunded_value_micro_euros,"
        "refunded_company_micro_euros,unvalued_refunds\n"
        "'=cmd|x,1,2,5400,5400000,0,1,3600000,7050000,3525000,3525000,0,1,,,1\n"
    )
    ran = run("report", "gpu")
    assert "1.5 h" in ran.out
    assert "7.05 €+" in ran.out
    assert "1 attempts without a tariff" in ran.err
    assert "refunds are worth unknown, 1 of them unknown" in ran.err
    broker.answers["GET", "/v1/reports/gpu"] = (200, {**answer, "agrees": False, "ledger_credits": 1})
    ran = run("report", "gpu", "--json")
    assert ran.code == Exit.UNEXPECTED
    assert "do not agree with the ledger" in ran.err


def test_login_reads_the_token_from_stdin_and_tries_it(
    run: Any, broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("wrong\n"))
    assert run("login", "--url", broker.url).code == Exit.FORBIDDEN
    assert config.load().token == TOKEN, "a bad token must not replace the good one"
    monkeypatch.setattr(sys, "stdin", io.StringIO(f" {TOKEN} \n"))
    ran = run("login", "--url", broker.url, "--token-file", "-")
    assert ran.code == 0
    assert TOKEN not in ran.out + ran.err
    assert run("whoami", "--json").json["url"] == broker.url
    assert run("logout").code == 0
    ran = run("jobs")
    assert ran.code == Exit.FORBIDDEN
    assert "idf-compute login" in ran.err


def test_admin_commands_send_what_the_contract_asks(run: Any, broker: Broker, tmp_path: Path) -> None:
    site = tmp_path / "s.toml"
    site.write_text('name = "jz"\n[gpu_types]\n"a100-80" = "a100"\n')
    run("org", "add", "acme", "--siret", "732 829 320 00074")
    days = ("--from", "2026-01-01", "--to", "2026-06-30")
    run("programme", "open", "p", "--budget", "1000h", "--kind", "pack-ia", *days)
    run("project", "add", "vision", "--org", "acme", "--programme", "p")
    run("project", "join", "vision", "alice")
    run("award", "grant", "vision", "100h", *days)
    run("class", "add", "h100-80", "--weight", "2.5", "--from", "2026-01-01")
    run("person", "add", "bob", "--role", "manager", "--role", "operator")
    run("site", "enrol", str(site))
    sent = [(call.path, call.json) for call in broker.calls if call.method == "POST"]
    assert sent == [
        ("/v1/organisations", {"name": "acme", "kind": "company", "siret": "732 829 320 00074"}),
        (
            "/v1/programmes",
            {
                "name": "p",
                "kind": "pack-ia",
                "default_time_limit_s": 3600,
                "budgets": [{"start_on": "2026-01-01", "end_on": "2026-06-30", "credits": 3_600_000_000}],
            },
        ),
        (
            "/v1/projects",
            {
                "name": "vision",
                "organisation": "acme",
                "programme": "p",
                "confidentiality": "internal",
                "nature": "none",
            },
        ),
        ("/v1/projects/vision/members", {"person": "alice", "role": "member"}),
        (
            "/v1/awards",
            {
                "project": "vision",
                "amount_credits": 360_000_000,
                "start_on": "2026-01-01",
                "end_on": "2026-06-30",
            },
        ),
        ("/v1/gpu-classes", {"name": "h100-80", "weight_thousandths": 2500, "valid_from": "2026-01-01"}),
        ("/v1/persons", {"name": "bob", "full_name": None, "roles": ["manager", "operator"]}),
        ("/v1/sites", {"name": "jz", "gpu_types": {"a100-80": "a100"}}),
    ]


def test_a_new_token_may_go_to_a_file_without_being_shown(run: Any, broker: Broker, tmp_path: Path) -> None:
    issued = {
        "id": "t1",
        "person": "bob",
        "label": "x",
        "created_at": "2026-01-01T00:00:00Z",
        "expires_at": "2027-01-01T00:00:00Z",
        "revoked_at": None,
        "token": "s3cret",
    }
    broker.answers["POST", "/v1/tokens"] = (201, issued)
    ran = run("token", "issue", "bob", "--save-to", str(tmp_path / "t"), "--json")
    assert "s3cret" not in ran.out + ran.err
    assert (tmp_path / "t").read_text() == "s3cret\n"
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600
    assert run("token", "issue", "bob", "--save-to", str(tmp_path / "t")).code == Exit.USAGE
    assert run("token", "issue", "bob").out == "s3cret\n"


@pytest.mark.parametrize(
    "words", [["frobnicate"], ["jobs", "--frob"], ["show"], ["jobs", "-n", "0"], ["org"], ["submit"]]
)
def test_words_that_are_not_understood_end_with_2_and_name_the_help(run: Any, words: list[str]) -> None:
    ran = run(*words)
    assert ran.code == Exit.USAGE
    assert "--help" in ran.err
    assert len(ran.err.splitlines()) == 2


def test_a_bug_is_no_traceback_unless_it_is_asked_for(
    run: Any, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.answers["GET", "/v1/jobs/j1"] = (200, {"id": "j1"})
    ran = run("show", "j1")
    assert ran.code == Exit.UNEXPECTED
    assert "Traceback" not in ran.err
    monkeypatch.setenv("IDF_COMPUTE_DEBUG", "1")
    assert "Traceback" in run("show", "j1").err


def test_a_reader_that_leaves_is_no_error(run: Any, broker: Broker) -> None:
    broker.jobs = [job(id=f"j{number}" + "x" * 300) for number in range(2000)]
    command = f"{sys.executable} -m cli.main jobs --all | head -1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.splitlines()[-1] == str(Exit.BROKEN_PIPE.value)
    assert ran.stderr == ""


def test_the_version_is_that_of_the_distribution() -> None:
    import tomllib

    with Path("pyproject.toml").open("rb") as file:
        expected = tomllib.load(file)["project"]["version"]
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cli.main", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == f"idf-compute {expected}\n"
    assert "typing" not in {line.split("|")[-1].strip() for line in ran.stderr.splitlines()}


def test_a_proxy_is_used_for_https_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:p%40ss@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "corp.example, .lan")
    assert wire._connection("https", "b.example", None).host == "proxy.example"
    assert wire._connection("https", "b.corp.example", None).host == "b.corp.example"
    assert wire._connection("https", "x.lan", None).host == "x.lan"
    assert wire._connection("http", "127.0.0.1", 80).host == "127.0.0.1"


def test_show_puts_what_the_site_said_between_the_moves(run: Any, broker: Broker) -> None:
    moves = [("2026-11-23T10:00:00Z", "held"), ("2026-11-23T10:00:10Z", "queued")]
    broker.jobs = [job(events=[{"at": at, "state": state, "cause": "x"} for at, state in moves])]
    said = {"reason": "Pulling", "message": "image \x1b[2J", "warning": False, "count": 1}
    broker.site_events = [
        {**said, "at": "2026-11-23T10:00:05Z"},
        {**said, "at": "2026-11-23T10:00:20Z", "reason": "FailedScheduling", "warning": True, "count": 4},
    ]
    lines = run("show", "j1").out.split("timeline\n")[1].splitlines()
    assert [line.split()[2:4] for line in lines[:4]] == [
        ["o", "held"], ["-", "Pulling:"], [">", "queued"], ["!", "FailedScheduling:"],
    ]  # fmt: skip
    assert lines[3].endswith("image \\x1b[2J (4 times)")
    broker.jobs = [job(hidden=["causes"])]
    assert "Pulling" not in run("show", "j1").out

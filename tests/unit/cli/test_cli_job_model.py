"""Options of the job model as people type them; outputs, environments, a first script."""

from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from unit.cli.conftest import NOW, Broker

from cli import environments
from cli.exits import Exit, Failure
from cli.job_options import begin_at, signal_of

AT = datetime(2026, 11, 23, 12, 30, tzinfo=ZoneInfo("UTC"))
OUTPUTS = "/v1/jobs/j1/outputs"


def file(path: str, size: int = 3) -> dict[str, Any]:
    return {"path": path, "size_bytes": size, "modified_at": NOW}


def offer(broker: Broker, *files: dict[str, Any], data: bytes = b"one") -> None:
    page = {"items": list(files), "next_cursor": None, "exists": True, "left_out": ["'x\x1b': it is no regular file"]}
    broker.answers["GET", OUTPUTS] = (200, page)
    broker.answers["GET", f"{OUTPUTS}/content"] = (200, (data, {}))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("+2h", "2026-11-23T14:30:00+00:00"),
        ("now+90", "2026-11-23T12:31:30+00:00"),
        ("now+2hours", "2026-11-23T14:30:00+00:00"),
        ("+1day", "2026-11-24T12:30:00+00:00"),
        ("22:15", "2026-11-23T22:15:00+00:00"),
        ("08:00", "2026-11-24T08:00:00+00:00"),
        ("2026-12-31", "2026-12-31T00:00:00+00:00"),
        ("2026-12-31T08:00", "2026-12-31T08:00:00+00:00"),
        ("2026-12-31T08:00:00+01:00", "2026-12-31T08:00:00+01:00"),
    ],
)
def test_when_a_job_begins(text: str, moment: str) -> None:
    assert begin_at(text, AT) == moment


@pytest.mark.parametrize("text", ["soon", "+", "+soon", "25:00", "2026-13-01", "now+99999999999999s", "", "+2h; id"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Failure, match="not understood"):
        begin_at(text, AT)


def test_signals() -> None:
    assert signal_of("USR1@120") == signal_of("B:SIGUSR1@120") == signal_of("10@120") == ("USR1", 120)
    assert signal_of("TERM") == ("TERM", 60)
    for wrong in ("KILL@5", "USR1@", "@5", "R:USR1@5"):
        with pytest.raises(Failure):
            signal_of(wrong)


def test_all_options_reach_the_broker(run: Any, broker: Broker) -> None:
    asked = ["--after", "a", "--after-any", "b", "--after-failed", "c", "--signal-before", "120", "--no-requeue"]
    asked += ["--module", "cuda/12", "--container", "x.sif", "--env", "pytorch", "--env", "A=1", "--mem-per-gpu", "4G"]
    asked += ["--gpus-per-node", "4", "--nodes", "2", "--begin", "2099-01-01"]
    assert run("submit", *asked, "--", "true").code == 0
    assert broker.posted("/v1/jobs")[0] == {
        "after": [{"job": job, "kind": f"after{end}"} for job, end in (("a", "ok"), ("b", "any"), ("c", "notok"))],
        "signal": "USR1", "signal_s": 120, "requeue": False, "modules": ["cuda/12"], "container": "x.sif",
        "named_environment": "pytorch", "environment": {"A": "1"}, "memory_per_gpu_mib": 4096, "gpus": 8, "nodes": 2,
        "begin_at": "2099-01-01T00:00:00+00:00", "name": "true", "arguments": ["true"],
    }  # fmt: skip


def test_what_is_typed_wins_over_the_script(run: Any, broker: Broker, tmp_path: Path) -> None:
    script = tmp_path / "s.sh"
    script.write_text("#!/bin/bash\n#SBATCH --signal=TERM@60 --requeue --mem=9G --nodes=2 --gres=gpu:1\ntrue\n")
    typed = ["--signal-before", "120", "--no-requeue", "--mem-per-gpu", "1G", "--gpus-per-node", "4"]
    ran = run("submit", *typed, str(script))
    body = broker.posted("/v1/jobs")[0]
    assert (body["signal"], body["signal_s"], body["requeue"], body["gpus"]) == ("USR1", 120, False, 8)
    assert body["memory_per_gpu_mib"] == 1024
    assert "memory_mib" not in body
    assert "your options win over" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "1", ":", "--gpus", "2", "x.sh"], "heterogeneous"),
        (["--het-group", "1", "x.sh"], "heterogeneous"),
        (["--env", "a", "--env", "b", "--", "x"], "several environments"),
        (["--env", "=x", "--", "x"], "without a name"),
        (["--signal", "USR1@5", "--signal-before", "5", "--", "x"], "say the same"),
        (["--gpus", "3", "--gpus-per-node", "4", "--", "x"], "disagree"),
    ],
)
def test_what_cannot_be_is_one_sentence(run: Any, broker: Broker, words: list[str], said: str) -> None:
    ran = run("submit", *words)
    assert ran.code in (Exit.USAGE, Exit.REFUSED)
    assert said in ran.err.splitlines()[0]
    assert not broker.posted("/v1/jobs")


def test_outputs_are_listed(run: Any, broker: Broker) -> None:
    offer(broker, file("a.txt"), file("d/\x1b[2J.bin", 2048))
    ran = run("outputs", "j1")
    assert "a.txt" in ran.out
    assert "\x1b" not in ran.out + ran.err
    assert "left out: " in ran.err
    assert run("outputs", "j1", "--json").json["items"][0]["path"] == "a.txt"


def test_outputs_are_fetched_into_a_new_folder(run: Any, broker: Broker, tmp_path: Path) -> None:
    offer(broker, file("a.txt"), file("d/e/b.bin"))
    target = tmp_path / "got"
    assert run("fetch", "j1", "--to", str(target)).code == 0
    assert (target / "a.txt").read_bytes() == (target / "d/e/b.bin").read_bytes() == b"one"
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".got")] == []
    again = run("fetch", "j1", "--to", str(target))
    assert (again.code, "is there already" in again.err) == (Exit.USAGE, True)
    assert run("fetch", "j1", "d", "--to", str(tmp_path / "some")).code == 0
    assert sorted(each.name for each in (tmp_path / "some").iterdir()) == ["d"]
    assert run("fetch", "j1", "missing", "--to", str(tmp_path / "none")).code == Exit.NOT_FOUND


@pytest.mark.parametrize("names", [["../x"], ["/etc/x"], ["a/../../x"], ["a\nb"], ["A", "a"], ["D/x", "d/y"], ["a\\b"]])
def test_a_name_that_leads_elsewhere_is_never_written(
    run: Any, broker: Broker, tmp_path: Path, names: list[str]
) -> None:
    offer(broker, *map(file, names))
    assert run("fetch", "j1", "--to", str(tmp_path / "got" / "in")).code == Exit.UNEXPECTED
    assert sorted(each.name for each in tmp_path.iterdir()) == ["config"]


def test_a_file_that_became_shorter_leaves_nothing(run: Any, broker: Broker, tmp_path: Path) -> None:
    offer(broker, file("a.txt", 9), data=b"")
    ran = run("fetch", "j1", "--to", str(tmp_path / "got"))
    assert (ran.code, "shorter" in ran.err) == (Exit.UNEXPECTED, True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["config"]


def test_an_environment_is_offered(run: Any, broker: Broker, tmp_path: Path) -> None:
    shown = {"site": "s", "name": "pytorch", "modules": ["m"], "container": None, "about": "x"}
    broker.answers["POST", "/v1/environments"] = (201, shown)
    assert run("env", "add", "pytorch", "--site", "s", "--module", "m").code == 0
    assert broker.posted("/v1/environments")[0]["about"] == environments.read("pytorch")["about"]
    ours = tmp_path / "e.toml"
    ours.write_text('about = "ours"\ncontainer = "x.sif"\n')
    assert run("env", "add", "ours", "--site", "s", "--from", str(ours)).code == 0
    assert broker.posted("/v1/environments")[1] == {"site": "s", "name": "ours", "about": "ours", "container": "x.sif"}
    ours.write_text("abuot = 1\n")
    assert "abuot" in run("env", "add", "ours", "--site", "s", "--from", str(ours)).err
    assert "--about" in run("env", "add", "mine", "--site", "s", "--module", "m").err


def test_three_ready_made_environments_with_an_example_each(run: Any) -> None:
    assert environments.names() == ["jax", "python", "pytorch"]
    for name in environments.names():
        assert run("env", "ready", name).out.startswith("#!/bin/bash\n#SBATCH ")
        assert name in run("env", "ready").out


def test_init_writes_a_script_and_nothing_over_it(
    run: Any, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init", "--env", "pytorch").code == 0
    script = Path("train.sbatch")
    assert "--env pytorch --try train.sbatch" in script.read_text()
    assert script.stat().st_mode & 0o111
    assert run("submit", "--try", "train.sbatch").code == 0
    script.write_text("mine")
    assert (run("init").code, script.read_text()) == (Exit.USAGE, "mine")

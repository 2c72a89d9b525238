"""The gateway as a site runs it, with stand-ins for Slurm's commands and no cluster."""

import ast
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from adapters.slurm.commands import frame

GATEWAY = Path(__file__).parents[2] / "adapters" / "slurm" / "gateway.py"
# The account's home comes from the password file; here it is the test's folder.
START = """\
import os, pwd, runpy, sys
real = pwd.getpwuid(os.getuid())
pwd.getpwuid = lambda uid: pwd.struct_passwd([real.pw_name, "x", real.pw_uid, real.pw_gid, "", {home!r}, ""])
sys.argv = [{gateway!r}]
runpy.run_path({gateway!r}, run_name="__main__")
"""


class Place:
    """A site of one account in a folder."""

    def __init__(self, folder: Path) -> None:
        self.home, self.bin = folder / "home", folder / "bin"
        for made in (self.home, self.bin):
            made.mkdir()
        self.gateway = folder / "idf-gateway"
        self.gateway.write_bytes(GATEWAY.read_bytes())
        settings = {"isolation": "shared", "slurm_conf": "/none", "path": f"{self.bin}:/usr/bin:/bin", "accounts": []}
        (folder / "idf-gateway.json").write_text(json.dumps(settings))
        self.me = pwd.getpwuid(os.getuid()).pw_name

    def command(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.bin / name).chmod(0o755)

    def start(self) -> subprocess.Popen[bytes]:
        code = START.format(home=str(self.home), gateway=str(self.gateway))
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-IS", "-c", code], stdin=pipe, stdout=pipe, stderr=pipe)

    def ask(self, request: bytes) -> list[tuple[str, dict[str, Any]]]:
        out, err = self.start().communicate(request, timeout=30)
        assert not err, err.decode()
        return read(out)

    def submit(self, batch: str = "b", jobs: int = 3, **changes: Any) -> dict[str, Any]:
        part = {"do": "submit", "batch": batch, "parallel": 2, "timeout_s": 20, "sbatch_s": 10}
        part["jobs"] = [{"name": f"idf-{n}", "args": [f"--job-name=idf-{n}"], "script": f"s{n}"} for n in range(jobs)]
        return {"accounts": {self.me: {**part, **changes}}}

    def burn(self, batch: str = "b", wait_s: float = 0, names: tuple[str, ...] = ("idf-0",)) -> dict[str, Any]:
        request = {"accounts": {self.me: {"do": "burn", "batches": {batch: list(names)}, "wait_s": wait_s}}}
        return self.ask(frame(request))[0][1]


def read(out: bytes) -> list[tuple[str, dict[str, Any]]]:
    return [(line.split(" ", 1)[0], json.loads(line.split(" ", 1)[1])) for line in out.decode().splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.command("sbatch", 'cat > "$HOME/script.$$"; echo "$@" >> "$HOME/arguments"; echo $$')
    return place


def names(answers: list[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {said["name"]: said for _, said in answers if "name" in said}


def test_it_runs_on_an_old_python_and_on_little_of_it() -> None:
    tree = ast.parse(GATEWAY.read_text(), feature_version=(3, 6))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported <= set(sys.stdlib_module_names)
    assert GATEWAY.read_text().startswith("#!/usr/bin/python3 -IS\n")


def test_a_batch_is_sent_and_ends_with_its_mark(place: Place) -> None:
    answers = place.ask(frame(place.submit()))
    assert answers[0] == (place.me, {"begun": True})
    assert {name: said["rc"] for name, said in names(answers).items()} == {"idf-0": 0, "idf-1": 0, "idf-2": 0}
    assert answers[-1] == ("*", {"end": True})
    scripts = sorted(file.read_text() for file in place.home.glob("script.*"))
    assert scripts == ["s0", "s1", "s2"]
    assert f"--chdir={place.home} --output={place.home}/.idf/logs/%x.log" in (place.home / "arguments").read_text()


@pytest.mark.parametrize("cut", [0, 10, 40, -1])
def test_a_beginning_of_a_request_does_nothing(place: Place, cut: int) -> None:
    request = frame(place.submit())
    answers = place.ask(request[:cut])
    assert "not whole" in answers[0][1]["refused"]
    assert not list(place.home.iterdir())


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\n\r\n", b"IDF1 2 0\n[]", b"IDF1 99999999999 0\n", b"x" * 100])
def test_what_is_no_request_does_nothing(place: Place, request_: bytes) -> None:
    answers = place.ask(request_)
    assert "refused" in answers[0][1]
    assert not list(place.home.iterdir())


@pytest.mark.parametrize(
    "args",
    [["--wrap=id"], ["--output=/etc/x"], ["--uid=0"], ["--job-name=a b"], ["--export=ALL,X=1"], ["-n"], ["script"],
     [""], ["--job-name=x\n"], ["--get-user-env"], ["--chdir=/tmp"], [["--nodes=1"]]],
)  # fmt: skip
def test_other_flags_never_reach_sbatch(place: Place, args: list[Any]) -> None:
    request = place.submit()
    request["accounts"][place.me]["jobs"][1]["args"] = args
    answers = place.ask(frame(request))
    assert "refused" in answers[0][1]
    assert not (place.home / "arguments").exists(), "not even the good ones of that batch"


def test_a_batch_is_used_once(place: Place) -> None:
    place.ask(frame(place.submit()))
    assert place.ask(frame(place.submit()))[0][1] == {"used": True}
    assert len(list(place.home.glob("script.*"))) == 3


def test_a_closed_batch_never_begins(place: Place) -> None:
    assert place.burn() == {"batch": "b", "closed_s_ago": 0, "begun": [], "answers": []}
    assert "closed" in place.ask(frame(place.submit()))[0][1]["refused"]
    assert not (place.home / "arguments").exists()


def test_the_journal_tells_what_became_of_each_name(place: Place) -> None:
    place.command("sbatch", 'read word; [ "$word" = s1 ] && { echo no >&2; exit 1; }; echo 7')
    place.ask(frame(place.submit()))
    told = place.burn(names=("idf-0", "idf-1", "idf-9"))
    assert told["begun"] == ["idf-0", "idf-1"]
    assert sorted((answer["name"], answer["rc"], answer["out"]) for answer in told["answers"]) == [
        ("idf-0", 0, "7\n"),
        ("idf-1", 1, ""),
    ]


def test_the_lock_outlives_a_killed_runner(place: Place) -> None:
    """The sbatch that it leaves behind still may send: the batch is busy until that has ended."""
    place.command("sbatch", "sleep 3; echo 7")
    runner = place.start()
    assert runner.stdin is not None
    runner.stdin.write(frame(place.submit()))
    runner.stdin.flush()
    assert runner.stdout is not None
    assert b"begun" in runner.stdout.readline()
    time.sleep(0.5)
    runner.send_signal(signal.SIGKILL)
    runner.communicate()
    assert place.burn() == {"batch": "b", "busy": True}
    told = place.burn(wait_s=10)
    assert (told["begun"], told["answers"]) == (["idf-0"], [])


def test_nobody_listening_means_not_to_begin(place: Place) -> None:
    runner = place.start()
    assert runner.stdout is not None
    assert runner.stdin is not None
    runner.stdout.close()
    runner.stdin.write(frame(place.submit()))
    runner.stdin.close()
    runner.wait(10)
    assert not (place.home / "arguments").exists()


def test_no_more_than_so_many_at_a_time(place: Place) -> None:
    place.command("sbatch", 'date +%s.%N >> "$HOME/t"; sleep 0.3; echo 7')
    began = time.monotonic()
    assert len(names(place.ask(frame(place.submit(jobs=6))))) == 6
    assert 0.9 <= time.monotonic() - began < 2.5


def test_an_sbatch_that_overstays_is_killed(place: Place) -> None:
    place.command("sbatch", "exec sleep 30")
    answers = names(place.ask(frame(place.submit(jobs=1, sbatch_s=1))))
    assert answers["idf-0"]["rc"] == -signal.SIGKILL


def test_when_time_is_up_the_rest_is_not_sent(place: Place) -> None:
    place.command("sbatch", "sleep 0.5; echo 7")
    answers = names(place.ask(frame(place.submit(jobs=9, timeout_s=0.7))))
    assert len(answers) == 9
    unsent = [name for name, said in answers.items() if "unsent" in said]
    assert unsent == [f"idf-{n}" for n in range(4, 9)]


def test_slurms_variables_are_not_inherited(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SBATCH_PARTITION", "SQUEUE_FORMAT", "SLURM_JWT", "LD_PRELOAD_X", "PYTHONPATH"):
        monkeypatch.setenv(variable, "forged")
    place.command("sbatch", "env >&2; echo 7")
    environment = names(place.ask(frame(place.submit(jobs=1))))["idf-0"]["err"]
    assert "forged" not in environment
    assert "TZ=UTC" in environment


def test_an_unknown_account_is_refused_and_others_are_served(place: Place) -> None:
    request = place.submit()
    request["accounts"]["root-or-so"] = request["accounts"][place.me]
    answers = place.ask(frame(request))
    assert ("root-or-so", {"refused": "root-or-so is no account of this site"}) in answers
    assert len(names(answers)) == 3


def test_another_version_is_refused(place: Place) -> None:
    assert "version" in place.ask(frame({**place.submit(), "version": 2}))[0][1]["refused"]


def test_one_command_for_all_jobs_and_its_words_are_checked(place: Place) -> None:
    place.command("squeue", 'echo squeue >> "$HOME/calls"; echo "1|RUNNING|0|x"; echo "7|RUNNING|0|other"')
    place.command("sacct", 'echo sacct >> "$HOME/calls"; echo "2|COMPLETED"')
    place.command("sdiag", 'echo sdiag >> "$HOME/calls"; echo "DBD Agent queue size: 0"')
    said = place.ask(frame({"do": "observe", "ids": ["1", "2", "3_4"]}))[0][1]
    assert said["queue"]["out"] == "1|RUNNING|0|x"
    assert (said["rows_not_written"], said["accounting"][0]["out"]) == (0, "2|COMPLETED\n")
    assert (place.home / "calls").read_text().split() == ["squeue", "sdiag", "sacct"]
    assert "error" in place.ask(frame({"do": "observe", "ids": ["1 --help"]}))[0][1]


# ── slurmrestd ──────────────────────────────────────────────────────────────────────────────────────────

JWT = "eyJh.eyJz.c2ln"


@pytest.fixture
def minting(place: Place) -> Place:
    """A site whose only account is SlurmUser."""
    settings = json.loads((place.gateway.parent / "idf-gateway.json").read_text())
    (place.gateway.parent / "idf-gateway.json").write_text(json.dumps({**settings, "slurm_user": place.me}))
    place.command("scontrol", f'echo "$@" >> "$HOME/minted"; echo SLURM_JWT={JWT}')
    return place


def begin(place: Place, batch: str = "r", life_s: int = 100) -> list[tuple[str, dict[str, Any]]]:
    accounts = {"opened_for": [place.me], "minted_for": [place.me]}
    return place.ask(frame({"do": "begin", "batch": batch, "life_s": life_s, **accounts}))


def test_a_batch_for_slurmrestd_is_opened_once_and_says_until_when(minting: Place) -> None:
    now = int(time.time())
    (account, opened), _, (_, told), end = begin(minting)
    assert (account, opened["begun"], opened["home"]) == (minting.me, True, str(minting.home))
    assert opened["environment"]["PATH"].startswith(str(minting.bin))
    assert told["tokens"] == {minting.me: JWT}
    assert end == ("*", {"end": True})
    assert (minting.home / "minted").read_text() == f"token username={minting.me} lifespan=100\n"
    begun, until = (minting.home / ".idf/batches/r").read_text().splitlines()
    assert begun == "begun"
    assert now + 100 < int(until.split()[1]) <= time.time() + 101
    assert begin(minting)[0][1] == {"used": True}
    burnt = minting.burn("r")
    assert 95 <= burnt["open_s"] <= 101
    assert burnt["begun"] == []


def test_a_token_that_lives_is_used_for_another_batch(minting: Place) -> None:
    asked = {"do": "begin", "batch": "r", "life_s": 100, "opened_for": [minting.me], "minted_for": []}
    answers = minting.ask(frame(asked))
    assert answers[0][1]["begun"]
    assert answers[2][1]["tokens"] == {}
    assert not (minting.home / "minted").exists()
    assert minting.burn("r")["open_s"] > 90, "no token of this batch's can have been minted for longer"


def test_a_closed_batch_is_not_opened_for_slurmrestd(minting: Place) -> None:
    assert "open_s" not in minting.burn("r")
    assert "closed" in begin(minting)[0][1]["refused"]
    assert "until" not in (minting.home / ".idf/batches/r").read_text()


def test_without_a_token_no_batch_is_opened(minting: Place) -> None:
    minting.command("scontrol", "echo 'not allowed' >&2; exit 1")
    answers = begin(minting)
    assert "not allowed" in answers[0][1]["error"]
    assert not (minting.home / ".idf/batches/r").exists()


@pytest.mark.parametrize("said", ["", "SLURM_JWT=", "SLURM_JWT=a.b", "SLURM_JWT=a.b.c d", "SLURM_JWT=a.b.c;id"])
def test_what_is_no_token_is_never_handed_on(minting: Place, said: str) -> None:
    minting.command("scontrol", f"echo '{said}'")
    assert "tokens" not in begin(minting)[0][1]


@pytest.mark.parametrize("life_s", [0, -1, 901])
def test_a_token_lives_at_most_a_quarter_of_an_hour(minting: Place, life_s: int) -> None:
    assert "at most 900 s" in begin(minting, life_s=life_s)[0][1]["error"]
    assert not (minting.home / "minted").exists()


def test_others_get_no_token(minting: Place) -> None:
    asked = frame({"do": "tokens", "minted_for": ["root", "--help", minting.me], "life_s": 60})
    assert minting.ask(asked)[0][1]["tokens"] == {minting.me: JWT}
    assert len((minting.home / "minted").read_text().splitlines()) == 1

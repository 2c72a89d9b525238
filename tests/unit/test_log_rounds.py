"""People who follow logs of one site share its rounds."""

import base64
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from adapters.errors import Rejected, Unreachable
from adapters.slurm.commands import Reply
from adapters.slurm.logs import Follower, LogRounds


class Head:
    """A head node that keeps logs, counts what runs there, and may be away."""

    def __init__(self) -> None:
        self.logs: dict[str, bytes] = {}
        self.rounds, self.most, self._now = 0, 0, 0
        self.away = False
        self._lock = threading.Lock()

    def ask(self, request: dict[str, Any], wait_s: float) -> Reply:
        with self._lock:
            self.rounds, self._now = self.rounds + 1, self._now + 1
            self.most = max(self.most, self._now)
        try:
            return self._answer(request, time.monotonic() + wait_s)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, request: dict[str, Any], until: float) -> Reply:
        if self.away:
            raise Unreachable("the head node is away")
        while True:
            said = {a: [self._piece(log) for log in part["logs"]] for a, part in request["accounts"].items()}
            if any(log.get("data") for logs in said.values() for log in logs) or time.monotonic() >= until:
                return Reply({account: [{"logs": logs}] for account, logs in said.items()}, {}, whole=True)
            time.sleep(0.01)

    def _piece(self, log: dict[str, Any]) -> dict[str, Any]:
        if log["name"] == "link":
            return {"refused": "what lies there is no regular file"}
        data = self.logs.get(log["name"])
        piece = (data or b"")[log["offset"] : log["offset"] + log["limit_bytes"]]
        return {"exists": data is not None, "data": base64.b64encode(piece).decode()}


def follower(name: str, offset: int = 0, wait_s: float = 2.0, account: str = "idf001") -> Follower:
    return Follower(account, name, offset, 1000, time.monotonic() + wait_s)


def test_fifty_followers_need_one_thing_at_a_time() -> None:
    head = Head()
    head.logs["a"] = b""
    rounds = LogRounds(head.ask)
    with ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(rounds.read, follower("a", account=f"idf00{n % 3}")) for n in range(50)]
        time.sleep(0.5)
        began = time.monotonic()
        head.logs["a"] = b"news"
        assert {each.result().data for each in asked} == {b"news"}
    assert time.monotonic() - began < 1.0
    assert head.most == 1


def test_silence_ends_when_the_followers_time_is_over() -> None:
    rounds = LogRounds(Head().ask)
    began = time.monotonic()
    chunk = rounds.read(follower("a", offset=5, wait_s=0.3))
    assert (chunk.data, chunk.next_offset, chunk.exists) == (b"", 5, False)
    assert 0.3 <= time.monotonic() - began < 1.0


def test_one_log_that_is_refused_spoils_no_other() -> None:
    head = Head()
    head.logs["a"] = b"text"
    rounds = LogRounds(head.ask)
    with ThreadPoolExecutor(2) as pool:
        good, bad = pool.submit(rounds.read, follower("a")), pool.submit(rounds.read, follower("link"))
        assert good.result().data == b"text"
        with pytest.raises(Rejected):
            bad.result()


def test_a_site_that_went_away_is_said_to_all_and_the_next_round_begins() -> None:
    head = Head()
    head.away = True
    rounds = LogRounds(head.ask)
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(rounds.read, follower("a")) for _ in range(5)]
        for each in asked:
            with pytest.raises(Unreachable):
                each.result()
    head.away, head.logs["a"] = False, b"back"
    assert rounds.read(follower("a")).data == b"back"

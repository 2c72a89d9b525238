"""Logs read by several at once: all who follow one at a site share its rounds, so the head node serves one of them.

A round is one request to the gateway, in which each account's part looks at all of that account's logs. Whoever
waits while nobody runs a round runs the next one for everybody.
"""

import base64
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapters.errors import Rejected, SiteError, Unreachable
from adapters.port import LogChunk
from adapters.slurm.commands import Reply

ROUND_S = 0.5
"""How long a round waits for something new; who comes meanwhile waits that long at most before being served."""
ROUND_S_OF_MANY = 0.2
"""The same with logs of several accounts: the gateway's answer is whole when the slowest of them has answered."""
LOGS_A_ROUND = 200
BYTES_A_ROUND = 32 << 20

Json = dict[str, Any]
Ask = Callable[[Json, float], Reply]


@dataclass(slots=True, eq=False)
class Follower:
    """Somebody who waits for more of one log."""

    account: str
    name: str
    offset: int
    limit_bytes: int
    until: float
    answer: LogChunk | SiteError | None = None

    def hear(self, said: Json, now: float) -> None:
        """Take a round's answer, unless there is nothing new and time to wait for it."""
        if "refused" in said:
            self.answer = Rejected(str(said["refused"])[:300])
            return
        data = base64.b64decode(said.get("data", ""))
        if data or now >= self.until:
            self.answer = LogChunk(data, self.offset + len(data), exists=bool(said.get("exists")))


class LogRounds:
    """The rounds of one site; `ask` sends a request that waits so many seconds at the site."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._changed = threading.Condition()
        self._waiting: list[Follower] = []
        self._runs = False

    def read(self, follower: Follower) -> LogChunk:
        """Return what the log holds after the follower's offset, at its `until` at the latest.

        Raises:
            Unreachable: the site did not answer.
            Rejected: what lies there is no regular file of that account.
        """
        with self._changed:
            self._waiting.append(follower)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: follower.answer is not None or not self._runs)
                if follower.answer is not None:
                    return _given(follower.answer)
                self._runs = True
                served = self._waiting[:LOGS_A_ROUND]
            self._round(served)

    def _round(self, served: list[Follower]) -> None:
        """Ask once for all of them; whatever happens, the next round may begin."""
        fault: SiteError | None = Unreachable("the logs could not be read")
        try:
            command = ReadLogs(served, time.monotonic())
            command.read(self._ask(command.request, command.wait_s), time.monotonic())
            fault = None
        except SiteError as error:
            fault = error
        finally:
            with self._changed:
                for follower in served:
                    follower.answer = follower.answer or fault
                again = [follower for follower in served if follower.answer is None]
                self._waiting = [*self._waiting[len(served) :], *again]
                self._runs = False
                self._changed.notify_all()


def _given(answer: LogChunk | SiteError) -> LogChunk:
    if isinstance(answer, SiteError):
        raise answer
    return answer


class ReadLogs:
    """Pieces of several logs, in one request."""

    def __init__(self, followers: list[Follower], now: float) -> None:
        self._of: dict[str, list[Follower]] = defaultdict(list)
        for follower in followers:
            self._of[follower.account].append(follower)
        longest = ROUND_S if len(self._of) == 1 else ROUND_S_OF_MANY
        share = BYTES_A_ROUND // max(1, len(followers))
        self.wait_s = max(0.0, min([longest, *(follower.until - now for follower in followers)]))
        self.request: Json = {
            "accounts": {
                account: {"do": "read_logs", "wait_s": self.wait_s, "logs": [_wanted(one, share) for one in some]}
                for account, some in self._of.items()
            }
        }

    def read(self, reply: Reply, now: float) -> None:
        """Let each follower hear; an account that failed fails its own followers only."""
        for account, followers in self._of.items():
            try:
                said = reply.only(account)["logs"]
                for follower, log in zip(followers, said, strict=True):
                    follower.hear(log, now)
            except SiteError as error:
                for follower in followers:
                    follower.answer = error
            except (KeyError, TypeError, ValueError):
                for follower in followers:
                    follower.answer = Unreachable("the site's answer cannot be read")


def _wanted(follower: Follower, bytes_max: int) -> Json:
    limit_bytes = min(follower.limit_bytes, bytes_max)
    return {"name": follower.name, "offset": follower.offset, "limit_bytes": limit_bytes}

"""The port for a Slurm site that the broker itself is part of: pyslurm, in child processes of its own.

libslurm ends the whole interpreter when it cannot read its configuration, and may hang or crash like any C
library. So nothing here imports it: each request goes to a new process, `pyslurm_child.py`, whose end, crash or
silence is an answer like any other. What is asked, and how answers are read, is the same as over SSH.
"""

import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO

from adapters.errors import Uncertain, Unreachable
from adapters.port import SiteFacts
from adapters.slurm.observation import Observe
from adapters.slurm.scheduler import Bounds, ThroughGateway
from adapters.slurm.ssh import ANSWER_BYTES_MAX, ERROR_BYTES_MAX, Answer

PROCESSES_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PyslurmSettings(Bounds):
    """A Slurm site on whose machine the broker runs."""

    command: tuple[str, ...]
    """What starts the child as the broker's own account: the Python that has pyslurm, `-I`, and the installed
    `idf-pyslurm`, each by its whole path. It goes on to project accounts by itself, through sudo."""


class ChildProcesses:
    """A way to a gateway that runs on this machine: one new process for each request."""

    def __init__(self, command: tuple[str, ...], processes_max: int = PROCESSES_MAX) -> None:
        self._command = command
        self._free = threading.BoundedSemaphore(processes_max)

    def ask(self, request: bytes, limit_s: float, data: BinaryIO | None = None) -> Answer:
        """Run the child once with this as its standard input, and return what it said.

        It finds the request there as a whole, so that until it was started nothing can have happened;
        afterwards anything may have.

        Raises:
            Unreachable: it was not started; nothing happened.
            Uncertain: it was, and did not end well within `limit_s` or `ANSWER_BYTES_MAX`.
        """
        deadline = time.monotonic() + limit_s
        if not self._free.acquire(timeout=limit_s):
            raise Unreachable("all of the processes that may ask this site are busy")
        try:
            with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaints:
                process = self._start(given, complaints, request, data)
                output = _listen(process, deadline)
                error = os.pread(complaints.fileno(), ERROR_BYTES_MAX, 0)
        finally:
            self._free.release()
        if process.returncode < 0 and not output:
            raise Uncertain(f"the process that asks the site was ended by signal {-process.returncode}")
        return Answer(output, error, process.returncode)

    def close(self) -> None:
        """Nothing stays open between two requests."""

    def _start(
        self, given: BinaryIO, complaints: BinaryIO, request: bytes, data: BinaryIO | None
    ) -> "subprocess.Popen[bytes]":
        try:
            given.write(request)
            if data is not None:
                shutil.copyfileobj(data, given, 1 << 20)
            given.seek(0)
            return subprocess.Popen(
                self._command, stdin=given, stdout=subprocess.PIPE, stderr=complaints,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"}, start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise Unreachable(f"the process that asks the site could not be started: {error}") from error


def _listen(process: "subprocess.Popen[bytes]", deadline: float) -> bytes:
    """Return what the process wrote until its end; end it, and what it started as ourselves, when that is too much."""
    try:
        output = _read(process, deadline)
        process.wait(max(0.0, deadline - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        raise Uncertain("the process that asks the site did not end in time") from error
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return output


def _read(process: "subprocess.Popen[bytes]", deadline: float) -> bytes:
    if process.stdout is None:
        raise ValueError("its output must be a pipe")
    parts: list[bytes] = []
    size = 0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            part = os.read(process.stdout.fileno(), 1 << 18)
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > ANSWER_BYTES_MAX:
                raise Uncertain("the site's answer is larger than what is read of one")


class SlurmPyslurm(ThroughGateway):
    """A Slurm site by pyslurm, for a broker on the cluster itself."""

    def __init__(self, settings: PyslurmSettings) -> None:
        super().__init__(settings, ChildProcesses(settings.command), ChildProcesses(settings.command))

    def check(self) -> SiteFacts:
        """See the port; pyslurm must also reach the queue."""
        facts = super().check()
        question = Observe((), self._settings.cluster)
        try:
            question.read(self._learn(question.request))
        except Unreachable as error:
            problem = f"pyslurm cannot ask this site: install the one of Slurm's own release. ({error.reason})"
            return replace(facts, problems=(*facts.problems, problem))
        return facts

"""The port for a Slurm site whose gateway is asked: over SSH, or in a process beside the broker (pyslurm_site.py)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from adapters.errors import Rejected, Uncertain, Unreachable
from adapters.port import Adoption, Answer, JobSpec, Known, LogChunk, Observation, Sent, SiteFacts
from adapters.slurm.commands import Adopt, Cancel, Check, PutSnapshot, ReadLog, Reply, Submit, frame
from adapters.slurm.observation import Observe
from adapters.slurm.ssh import Answer as Said
from adapters.slurm.ssh import SshConnection, SshSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is known of a Slurm site, and how long and how large anything asked of it may become."""

    cluster: str
    """Slurm's own name of the cluster: part of every attempt's identity."""
    parallel: int = 8
    """How many sbatch a batch runs at one time."""
    submit_s_max: int = 60
    """After that no further sbatch of a batch is started."""
    sbatch_s_max: int = 30
    """A single sbatch; longer than Slurm's own MessageTimeout."""
    adopt_wait_s: float = 10.0
    """How long an adoption waits for a batch that still runs."""
    settle_s: int = 310
    """How long a request without an answer may still be taken: munge's lifetime, 300 s, and a little."""
    answer_s_max: float = 60.0
    log_bytes_max: int = 1 << 20
    log_wait_s_max: float = 30.0
    snapshot_bytes_max: int = 1 << 30
    snapshot_bytes_a_second_min: int = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmSettings(Bounds):
    """A Slurm site that is reached over SSH."""

    ssh: SshSettings


class Connection(Protocol):
    """A way to a gateway."""

    def ask(self, request: bytes, limit_s: float, data: BinaryIO | None = None) -> Said:
        """Hand a request and its data over whole, and return what the gateway said.

        Raises:
            Unreachable: it was not handed over; nothing happened.
            Uncertain: it was, and no answer came.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class ThroughGateway:
    """A Slurm site through its gateway. Safe to share between threads."""

    def __init__(self, settings: Bounds, calls: Connection, logs: Connection) -> None:
        self._settings = settings
        self._calls = calls
        self._logs = logs  # people who wait for a line must not hold up the broker

    def submit(self, batch: str, specs: Sequence[JobSpec]) -> Mapping[str, Answer]:
        """See the port."""
        settings = self._settings
        command = Submit(
            batch, specs, parallel=settings.parallel,
            timeout_s=settings.submit_s_max, sbatch_s=settings.sbatch_s_max,
        )  # fmt: skip
        answers = dict(command.refused)
        if command.request["accounts"]:
            limit_s = settings.submit_s_max + settings.sbatch_s_max + 15
            answers |= self._send(command, limit_s)
        return answers

    def adopt(self, sent: Sequence[Sent]) -> Mapping[str, Adoption]:
        """See the port."""
        if not sent:
            return {}
        settings = self._settings
        command = Adopt(sent, wait_s=settings.adopt_wait_s, settle_s=settings.settle_s)
        batches = len({(job.account, job.batch) for job in sent})
        try:
            return command.read(self._learn(command.request, settings.answer_s_max + batches * settings.adopt_wait_s))
        except Unreachable as error:
            return {job.name: error for job in sent}

    def observe(self, known: Sequence[Known]) -> Observation:
        """See the port."""
        if not known:
            return Observation({}, frozenset())
        command = Observe(known, self._settings.cluster)
        return command.read(self._learn(command.request))

    def cancel(self, known: Sequence[Known]) -> Mapping[str, Answer]:
        """See the port."""
        return self._send(Cancel(known), self._settings.answer_s_max) if known else {}

    def read_log(self, account: str, name: str, offset: int, limit_bytes: int, wait_s: float) -> LogChunk:
        """See the port."""
        limit_bytes = min(limit_bytes, self._settings.log_bytes_max)
        wait_s = min(wait_s, self._settings.log_wait_s_max)
        command = ReadLog(account, name, offset, limit_bytes, wait_s)
        return command.read(self._learn(command.request, self._settings.answer_s_max + wait_s, self._logs))

    def put_snapshot(self, account: str, digest: str, archive: Path) -> None:
        """See the port."""
        question = PutSnapshot(account, digest, 0)
        if question.read(self._learn(question.request)):
            return
        size = archive.stat().st_size
        if size > self._settings.snapshot_bytes_max:
            raise Rejected(f"the snapshot is too large: {size} of {self._settings.snapshot_bytes_max} bytes")
        command = PutSnapshot(account, digest, size)
        limit_s = self._settings.answer_s_max + size / self._settings.snapshot_bytes_a_second_min
        with archive.open("rb") as data:
            there = command.read(self._learn(command.request, limit_s, data=data, data_bytes=size))
        if not there:
            raise Unreachable("the site does not have the snapshot")

    def check(self) -> SiteFacts:
        """See the port."""
        command = Check()
        return command.read(self._learn(command.request))

    def close(self) -> None:
        """See the port."""
        self._calls.close()
        self._logs.close()

    def _send(self, command: Submit | Cancel, limit_s: float) -> Mapping[str, Answer]:
        """Ask for a change: what was not answered is uncertain once it was handed over."""
        try:
            answer = self._calls.ask(frame(command.request), limit_s)
            return command.read(Reply.read(answer.output, answer.error))
        except (Unreachable, Uncertain) as error:
            return command.all(error)

    def _learn(
        self, request: dict[str, Any], limit_s: float | None = None, connection: Connection | None = None,
        data: BinaryIO | None = None, data_bytes: int = 0,
    ) -> Reply:  # fmt: skip
        """Ask a question; a repeat does no harm, so that no answer is no more than that.

        Raises:
            Unreachable: nothing was learnt.
        """
        connection, limit_s = connection or self._calls, limit_s or self._settings.answer_s_max
        try:
            answer = connection.ask(frame(request, data_bytes), limit_s, data)
        except Uncertain as error:
            raise Unreachable(error.reason) from error
        return Reply.read(answer.output, answer.error)


class SlurmSsh(ThroughGateway):
    """A Slurm site over SSH."""

    def __init__(self, settings: SlurmSettings) -> None:
        super().__init__(settings, SshConnection(settings.ssh), SshConnection(settings.ssh))

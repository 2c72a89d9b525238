"""What a job left in its output folder, listed and read through the gateway; and when a job would start."""

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from unicodedata import category

from adapters.errors import Rejected
from adapters.port import Forecast, JobSpec, OutputFile, OutputPiece, Outputs
from adapters.slurm.commands import Reply
from adapters.slurm.wrapper import sbatch_flags

PATH_BYTES_MAX = 4096
DEPTH_MAX = 16
TEST_ONLY_S = 15

Json = dict[str, Any]


def fault_of(path: str) -> str | None:
    """Return why a path cannot be that of an output file; None for a good one. The site's word is not taken for it."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "it leads out of the folder"
    if any(category(character) in ("Cc", "Cs") for character in path):
        return "it holds control characters"
    if len(parts) > DEPTH_MAX or len(path.encode()) > PATH_BYTES_MAX:
        return "it is too long or too deep"
    return None


class ListOutputs:
    """The regular files of a job's output folder."""

    def __init__(self, account: str, name: str, tasks: Sequence[int] | None = None) -> None:
        self._account = account
        of = {} if tasks is None else {"tasks": list(tasks)}
        self.request: Json = {"accounts": {account: {"do": "list_outputs", "name": name, **of}}}

    def read(self, reply: Reply) -> Outputs:
        """Return what lies there.

        Raises:
            Rejected: what lies there is no folder.
            Unreachable: there is no answer.
        """
        said = reply.only(self._account)
        left_out = [str(sentence)[:500] for sentence in said["left_out"]]
        more = int(said["left_out_count"]) - len(left_out)
        files: list[OutputFile] = []
        seen: set[str] = set()
        for path, size_bytes, modified_s in said["files"]:
            fault = fault_of(path) or ("another one differs by case alone" if path.casefold() in seen else None)
            if fault is not None:
                left_out.append(f"{path!r}: {fault}")
                continue
            seen.add(path.casefold())
            files.append(OutputFile(path, int(size_bytes), datetime.fromtimestamp(int(modified_s), UTC)))
        left_out += [f"and {more} more that were left out"] if more > 0 else []
        return Outputs(tuple(sorted(files, key=lambda file: file.path)), tuple(left_out), bool(said["exists"]))


class ReadOutput:
    """A piece of one file."""

    def __init__(
        self, account: str, name: str, path: str, offset: int, limit_bytes: int, task: int | None = None
    ) -> None:
        if fault := fault_of(path):
            raise Rejected(f"{path!r} is no path of a job's outputs: {fault}")
        self._account = account
        part = {"do": "read_output", "name": name, "path": path, "offset": offset, "limit_bytes": limit_bytes}
        part |= {} if task is None else {"task": task}
        self.request: Json = {"accounts": {account: part}}

    def read(self, reply: Reply) -> OutputPiece:
        """Return the piece.

        Raises:
            Rejected: there is no such regular file.
            Unreachable: there is no answer.
        """
        said = reply.only(self._account)
        return OutputPiece(base64.b64decode(said["data"]), int(said["size_bytes"]))


_TO_START = re.compile(r"Job [0-9]+ to start at ([0-9]{1,12}) ")


class ExpectedStart:
    """`sbatch --test-only`: Slurm's own estimate, which it gives without taking the job."""

    def __init__(self, spec: JobSpec) -> None:
        """Ask for it; `Rejected` if the job cannot be asked of Slurm at all."""
        self._account = spec.account
        flags = [flag for flag in sbatch_flags(spec) if not flag.startswith("--dependency=")]
        part = {"do": "expected_start", "args": flags, "limit_s": TEST_ONLY_S}
        self.request: Json = {"accounts": {spec.account: part}}

    def read(self, reply: Reply) -> Forecast:
        """Return the time, or why there is none.

        Raises:
            Unreachable: there is no answer.
        """
        try:
            said = reply.only(self._account)
        except Rejected as refusal:
            return Forecast(None, refusal.reason)
        text = str(said.get("err", "")) + str(said.get("out", ""))
        if match := _TO_START.search(text):
            return Forecast(datetime.fromtimestamp(int(match[1]), UTC))
        lines = [line.removeprefix("sbatch: ").removeprefix("error: ").strip() for line in text.splitlines()]
        why = "; ".join(line for line in lines if line)[:300]
        return Forecast(None, f"the scheduler gave no time: {why or 'it said nothing'}")

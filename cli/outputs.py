"""A job's output folder: listed, and fetched into a new folder that holds nothing else."""

import os
import secrets
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from unicodedata import category

import typer

from cli.client import Client, Row, connect, part, task_of
from cli.exits import Exit, Failure
from cli.options import JobId, Json
from cli.output import Column, as_json, listed, note, one_line, say
from cli.units import moment_text, size_text

PIECE_BYTES = 4 * 1024 * 1024
FILES_MAX = 10_000
DEPTH_MAX = 16
BYTES_MAX = 100 * 1024**3
"""What one `fetch` brings at most."""
app = typer.Typer()


@app.command()
def outputs(job: JobId, in_json: Json = False) -> None:
    """List what a job wrote into its folder $IDF_OUTPUTS; an array has one for each task (ID_7).

    \b
    Example:
      idf-compute outputs 01JD3X8N5E
    """
    found = _listed(connect(), job)
    if in_json:
        say(as_json(found))
        return
    columns = (Column("SIZE", right=True), Column("WRITTEN", spare=1), Column("PATH"))
    rows: Any = lambda file: [size_text(file["size_bytes"]), moment_text(file["modified_at"]), file["path"]]  # noqa: E731
    if found["items"]:
        listed(found["items"], in_json=False, columns=columns, rows=rows)
    else:
        note(f"job {one_line(job)} has no outputs: what a job writes into $IDF_OUTPUTS is listed here")
    _say_left_out(found)


@app.command()
def fetch(
    job: JobId,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH...]", help="Files or folders of them. [default: all]")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="A folder that is made. [default: the job's id]")] = None,
    in_json: Json = False,
) -> None:
    """Fetch a job's outputs into a new folder: all of them or none; of an array those of ID_7, or of all tasks.

    \b
    Example:
      idf-compute fetch 01JD3X8N5E
      idf-compute fetch 01JD3X8N5E model.safetensors checkpoints --to ./first-model
    """
    client = connect()
    found = _listed(client, job)
    wanted = _wanted(found["items"], paths or [])
    target = to or Path(job)
    _check(wanted, target)
    _bring(client, job, wanted, target)
    _say_left_out(found)
    total = sum(file["size_bytes"] for file in wanted)
    if in_json:
        say(as_json({"job": job, "to": str(target), "files": wanted, "left_out": found["left_out"]}))
    else:
        say(f"{len(wanted):,} files, {size_text(total)}, in {one_line(target)}")


def _listed(client: Client, job: str) -> Row:
    """Give all pages of the listing as one."""
    of, task = task_of(job)
    path, found, cursor = f"/v1/jobs/{part(of)}/outputs", [], None
    while True:
        page = client.get(path, {"limit": 500, "cursor": cursor, "task": task})
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None or len(found) > FILES_MAX:
            return {**page, "items": found[:FILES_MAX]}


def _wanted(files: list[Row], paths: list[str]) -> list[Row]:
    """Give the files that were named, or lie in folders that were; all when none was. Raises Failure."""
    if not paths:
        if not files:
            raise Failure(Exit.NOT_FOUND, "the job has no outputs", "a job's script writes them into $IDF_OUTPUTS")
        return files
    chosen: dict[str, Row] = {}
    for path in paths:
        plain = path.removeprefix("./").rstrip("/")
        inside = [file for file in files if file["path"] == plain or file["path"].startswith(f"{plain}/")]
        if not inside or not plain:
            raise Failure(Exit.NOT_FOUND, f"the job has no output {path!r}", "idf-compute outputs ID lists them")
        chosen |= {file["path"]: file for file in inside}
    return list(chosen.values())


def _check(files: list[Row], target: Path) -> None:
    """Refuse names that would write elsewhere or over each other, whoever sent them. Raises Failure."""
    if target.exists() or target.is_symlink():
        raise Failure(Exit.USAGE, f"{target} is there already", "name a folder that is not, with --to")
    taken: dict[str, str] = {}
    for file in files:
        path = str(file["path"])
        if fault := _fault(path):
            raise Failure(Exit.UNEXPECTED, f"the output {path!r} was not fetched: {fault}", "name the others")
        for place in (path, *map(str, PurePosixPath(path).parents)):
            if taken.setdefault(place.casefold(), place) != place:
                sentence = f"the outputs {place!r} and {taken[place.casefold()]!r} differ by case alone"
                raise Failure(Exit.UNEXPECTED, sentence, "name one of them")
    total = sum(int(file["size_bytes"]) for file in files)
    if total > BYTES_MAX:
        raise Failure(Exit.REFUSED, f"{size_text(total)} are more than a fetch brings", "name some of the files")


def _fault(path: str) -> str | None:
    parts = path.split("/")
    if any(name in ("", ".", "..") for name in parts) or len(parts) > DEPTH_MAX or "\\" in path:
        return "its path leads elsewhere"
    if any(category(character) in ("Cc", "Cs") for character in path):
        return "its name holds control characters"
    return None


def _bring(client: Client, job: str, files: list[Row], target: Path) -> None:
    """Write into a folder of another name beside the target, which gets its name when all is there. Raises Failure."""
    from cli.upload import bar

    half = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        half.mkdir(mode=0o700)
        with bar(sum(file["size_bytes"] for file in files), "fetching") as seen:
            for file in files:
                place = half / file["path"]
                place.parent.mkdir(parents=True, exist_ok=True)
                _bring_one(client, job, file, place, seen)
        half.rename(target)
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot write to {target}: {error.strerror}") from error
    finally:
        _remove(half)


def _bring_one(client: Client, job: str, file: Row, place: Path, seen: Any) -> None:
    """Write one file, which must be as long as it was when it was listed. Raises Failure."""
    offset, size = 0, int(file["size_bytes"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(place, flags, 0o600), "wb") as opened:
        while offset < size:
            data = client.output(job, file["path"], offset, min(PIECE_BYTES, size - offset))
            if not data:
                raise Failure(Exit.UNEXPECTED, f"the output {file['path']} became shorter meanwhile", "fetch it again")
            opened.write(data)
            offset += len(data)
            seen(len(data))


def _remove(half: Path) -> None:
    if half.exists():
        from shutil import rmtree

        rmtree(half, ignore_errors=True)


def _say_left_out(found: Row) -> None:
    for sentence in found["left_out"]:
        note(f"left out: {one_line(sentence)}")

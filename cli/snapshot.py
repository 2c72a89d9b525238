"""Pack a folder so that the same content always gives the same bytes, and nothing but the folder gets in.

The archive is a gzipped tar: names sorted, no times, no owners, modes 0644 or 0755. Names that the root's
`.gitignore` and `.idfignore` leave out are not in it (the latter read last, so that it wins), nor are `.git`,
`.venv` and `__pycache__` at any depth.
"""

import gzip
import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple
from unicodedata import normalize

from pathspec import GitIgnoreSpec

from cli.exits import Exit, Failure

ALWAYS_LEFT_OUT = frozenset({".git", ".venv", "__pycache__"})
IGNORE_FILES = (".gitignore", ".idfignore")
DEPTH_MAX = 64
NAME_BYTES_MAX = 4096
_BLOCK = 1024 * 1024


class Entry(NamedTuple):
    """A file, folder or link of the folder: its name below it, what lstat said, and a link's target."""

    name: str
    status: os.stat_result
    target: str = ""


class Packed(NamedTuple):
    """An archive in a temporary file, open and at its start."""

    file: IO[bytes]
    digest: str
    """SHA-256 of the archive, hex."""
    size_bytes: int
    files: int
    content_bytes: int


def pack(folder: Path, bytes_max: int, files_max: int) -> Packed:
    """Pack a folder into a temporary file that ends with the process. Raises Failure."""
    entries = survey(folder, bytes_max, files_max)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    _write(folder, entries, file)
    size_bytes = file.tell()
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    regular = [entry.status.st_size for entry in entries if stat.S_ISREG(entry.status.st_mode)]
    return Packed(file, digest, size_bytes, len(regular), sum(regular))


def survey(folder: Path, bytes_max: int, files_max: int) -> list[Entry]:
    """List what would be packed, reading no content; stop when a bound is passed. Raises Failure."""
    if not folder.is_dir():
        raise Failure(Exit.USAGE, f"--dir {folder} is no folder")
    entries: list[Entry] = []
    total_bytes = 0
    for entry in _walk(folder, "", _ignored(folder), 1):
        entries.append(entry)
        total_bytes += entry.status.st_size if stat.S_ISREG(entry.status.st_mode) else 0
        if total_bytes > bytes_max:
            raise _too_much(folder, f"more than {bytes_max / 2**20:,.0f} MiB")
        if len(entries) > files_max:
            raise _too_much(folder, f"more than {files_max:,} files")
    return sorted(entries, key=lambda entry: entry.name.encode())


def _too_much(folder: Path, what: str) -> Failure:
    return Failure(
        Exit.REFUSED,
        f"the folder {folder} holds {what}",
        "list in .idfignore what the job does not need, or raise the bound in the configuration",
    )


def _ignored(folder: Path) -> GitIgnoreSpec:
    lines: list[str] = []
    for name in IGNORE_FILES:
        try:
            lines += (folder / name).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Failure(Exit.USAGE, f"cannot read {folder / name}: {error.strerror}") from error
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise Failure(Exit.USAGE, f"a line of .gitignore or .idfignore is not understood: {error}") from error


def _walk(folder: Path, below: str, ignored: GitIgnoreSpec, depth: int) -> Iterator[Entry]:
    if depth > DEPTH_MAX:
        raise Failure(Exit.REFUSED, f"the folder {folder} is deeper than {DEPTH_MAX} levels")
    seen: dict[str, str] = {}
    for found in _listed(folder / below):
        name = f"{below}{found.name}"
        is_folder = found.is_dir(follow_symlinks=False)
        if found.name in ALWAYS_LEFT_OUT or ignored.match_file(f"{name}/" if is_folder else name):
            continue
        _check_name(name, found.name, seen)
        yield _entry(folder, name, found)
        if is_folder:
            yield from _walk(folder, f"{name}/", ignored, depth + 1)


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read the folder {folder}: {error.strerror}") from error


def _check_name(name: str, last: str, seen: dict[str, str]) -> None:
    """Refuse names that would mean something else elsewhere. `seen` holds the names of the same folder."""
    if not last.isprintable() or "\\" in last:
        raise Failure(Exit.REFUSED, f"the name {name!a} holds control characters or a backslash", "rename the file")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise Failure(Exit.REFUSED, f"the name {name[:60]}… is longer than {NAME_BYTES_MAX} bytes", "shorten it")
    other = seen.setdefault(normalize("NFC", last).casefold(), last)
    if other != last:
        raise Failure(Exit.REFUSED, f"{name} and {other} differ by case only", "rename one of them")


def _entry(folder: Path, name: str, found: os.DirEntry[str]) -> Entry:
    try:
        status = found.stat(follow_symlinks=False)
        target = str(Path(found.path).readlink()) if stat.S_ISLNK(status.st_mode) else ""
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {folder / name}: {error.strerror}") from error
    if target:
        _check_link(folder, name, target)
    elif not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise Failure(Exit.REFUSED, f"{folder / name} is neither a file nor a folder", "add it to .idfignore")
    return Entry(name, status, target)


def _check_link(folder: Path, name: str, target: str) -> None:
    """Refuse a link that leads out of the folder, by its own words or by way of other links."""
    lexical = os.path.normpath(os.path.join(os.path.dirname(name), target))  # noqa: PTH118, PTH120 - no resolving
    root = os.path.realpath(folder)
    real = os.path.realpath(folder / name)
    inside = real == root or real.startswith(root.rstrip("/") + "/")
    if os.path.isabs(target) or lexical == ".." or lexical.startswith("../") or not inside:  # noqa: PTH117
        raise Failure(
            Exit.REFUSED,
            f"the link {name} leads out of the folder, to {target}",
            "add it to .idfignore, or copy it",
        )
    if not target.isprintable():
        raise Failure(Exit.REFUSED, f"the target of the link {name} holds control characters", "make it anew")


def _write(folder: Path, entries: list[Entry], file: IO[bytes]) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for entry in entries:
            _add(folder, entry, archive)


def _add(folder: Path, entry: Entry, archive: tarfile.TarFile) -> None:
    info = tarfile.TarInfo(entry.name)
    mode = entry.status.st_mode
    info.mode = 0o755 if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0o644
    if stat.S_ISREG(mode):
        info.size = entry.status.st_size
        with _opened(folder / entry.name, entry) as content:
            try:
                archive.addfile(info, content)
            except OSError as error:
                raise _changed(folder / entry.name) from error
        return
    info.type = tarfile.DIRTYPE if stat.S_ISDIR(mode) else tarfile.SYMTYPE
    info.linkname = entry.target
    archive.addfile(info)


def _opened(path: Path, entry: Entry) -> IO[bytes]:
    """Open a file that is still the one that was listed, with as many bytes. Raises Failure."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {path}: {error.strerror}") from error
    now = os.fstat(descriptor)
    listed = entry.status
    if (now.st_dev, now.st_ino, now.st_size) != (listed.st_dev, listed.st_ino, listed.st_size):
        os.close(descriptor)
        raise _changed(path)
    return os.fdopen(descriptor, "rb")


def _changed(path: Path) -> Failure:
    return Failure(Exit.USAGE, f"{path} changed while the folder was packed, or cannot be read", "submit again")

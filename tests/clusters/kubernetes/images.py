"""Images for a node that reaches no registry: a busybox of this machine in a docker archive."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

APPLETS = (
    "sh", "cat", "echo", "env", "sleep", "ls", "id", "printf", "true", "false", "kill", "mkdir", "rm", "head", "tail",
    "date", "seq", "wc", "dd", "test", "tr", "sort", "hostname", "nslookup", "sha256sum", "base64", "touch", "grep",
)  # fmt: skip
JOBS = "idf.test/busybox:1"
PAUSE = "idf.test/pause:1"


def by_digest(digest: str) -> str:
    """The jobs' image as a job names it."""
    return f"{JOBS.partition(':')[0]}@sha256:{digest}"


def write(busybox: Path, target: Path) -> str:
    """Write an archive with the image of jobs and the image of pauses; return a digest that the first is known by."""
    layer = _layer(busybox.read_bytes())
    jobs = _config(layer, ["/bin/sh"])
    pause = _config(layer, ["/bin/busybox", "sleep", "2147483647"])
    names = [(JOBS, jobs), (PAUSE, pause)]
    manifest = [
        {"Config": f"{_sha(config)}.json", "RepoTags": [name], "Layers": ["layer.tar"]} for name, config in names
    ]
    with tarfile.open(target, "w") as archive:
        for name, data in (
            (f"{_sha(jobs)}.json", jobs),
            (f"{_sha(pause)}.json", pause),
            ("layer.tar", layer),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            _add(archive, name, data)
    return _sha(jobs)


def _config(layer: bytes, entrypoint: list[str]) -> bytes:
    content = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin"], "User": "65534:65534", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha(layer)}"]},
    }
    return json.dumps(content, sort_keys=True).encode()


def _layer(busybox: bytes) -> bytes:
    """A root with busybox, its applets as links, and the folders that containers expect."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as layer:
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            layer.addfile(folder)
        _add(layer, "bin/busybox", busybox, 0o755)
        _add(layer, "etc/passwd", b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(link)
    return data.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""A job's log, as kubelet keeps it: from an offset, waiting for something new. Never by `pods/exec`."""

import time

import urllib3

from adapters.errors import Rejected, Unreachable
from adapters.k8s.client import Api, Json, NotFound
from adapters.k8s.manifests import ARRAY, INDEX, JOB
from adapters.port import LogChunk

PIECE_BYTES = 64 << 10
PAUSE_S = 0.25


def read(
    api: Api, account: str, name: str, index: int | None, offset: int, limit_bytes: int, wait_s: float
) -> LogChunk:
    """Return the log from `offset`, waiting up to `wait_s` for something new.

    The log of a job with several attempts is theirs one after another; an array has one for each index.

    Raises:
        Unreachable: the site did not answer.
    """
    end = time.monotonic() + wait_s
    while True:
        chunk, ended = _once(api, account, _pods(api, account, name, index), offset, limit_bytes)
        if chunk.data or ended or time.monotonic() >= end:
            return chunk
        time.sleep(min(PAUSE_S, max(end - time.monotonic(), 0)))


def _once(api: Api, account: str, pods: list[Json], offset: int, limit_bytes: int) -> tuple[LogChunk, bool]:
    skip, data, exists = offset, b"", False
    for pod in pods:
        got = _of_pod(api, account, pod["metadata"]["name"], skip, limit_bytes - len(data))
        if got is None:
            continue
        exists = True
        piece, skipped = got
        data, skip = data + piece, skip - skipped
        if len(data) >= limit_bytes:
            break
    ended = bool(pods) and pods[-1].get("status", {}).get("phase") in ("Succeeded", "Failed")
    return LogChunk(data, offset + len(data), exists=exists), ended


def _pods(api: Api, account: str, name: str, index: int | None) -> list[Json]:
    """The job's pods on its first node, or those of one index of an array, oldest first."""
    try:
        pages = list(api.pages(f"/api/v1/namespaces/{account}/pods", labelSelector=f"{JOB}={name}"))
    except NotFound:
        return []
    pods = [pod for page in pages for pod in page.get("items") or () if _is_of(pod, index)]
    return sorted(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _is_of(pod: Json, index: int | None) -> bool:
    metadata = pod["metadata"]
    of_array = ARRAY in (metadata.get("labels") or {})
    own = (metadata.get("annotations") or {}).get(INDEX, "0")
    return of_array == (index is not None) and str(own) == str(index or 0)


def _of_pod(api: Api, account: str, pod: str, skip: int, limit_bytes: int) -> tuple[bytes, int] | None:
    """Read a pod's log past `skip` bytes; return it and how many were skipped, or None where there is none yet."""
    try:
        answer = api.open(f"/api/v1/namespaces/{account}/pods/{pod}/log", (5.0, 30.0), container="job")
    except Rejected:
        return None  # its container has not begun, or its node took the log with it
    skipped, data = 0, b""
    try:
        for piece in answer.stream(PIECE_BYTES):
            passed = min(skip - skipped, len(piece))
            skipped += passed
            data += piece[passed : passed + limit_bytes - len(data)]
            if len(data) >= limit_bytes:
                break
    except urllib3.exceptions.HTTPError as error:
        raise Unreachable(f"the log broke off: {str(error)[:200]}") from error
    finally:
        answer.close()
    return data, skipped

"""One stream of Jobs and one of pods for a whole site, resumed where they broke, begun anew if too much was missed."""

import json
import random
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import urllib3

from adapters.errors import SiteError, Unreachable
from adapters.k8s.client import Api, Gone
from adapters.k8s.manifests import SELECTOR
from adapters.k8s.seen import SeenJob, SeenPod, job_of, pod_of

Json = dict[str, Any]

T = TypeVar("T")

STREAM_S = 300
PAUSE_S_MAX = 5.0


_BROKEN = (SiteError, urllib3.exceptions.HTTPError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""How a stream breaks, an answer in a form that nobody expects included: it is begun again."""


class Stream:
    """Lists one kind of object, then follows its changes, in a thread of its own."""

    def __init__(self, api: Api, path: str, put: Callable[[Json], None], drop: Callable[[Json], None],
                 restart: Callable[[], None], finish: Callable[[], None], stale_s: float) -> None:  # fmt: skip
        self._api, self._path, self._stale_s = api, path, stale_s
        self._put, self._drop, self._restart, self._finish = put, drop, restart, finish
        self._version = ""
        self._stop = threading.Event()
        self._live = threading.Event()
        self._answer: urllib3.HTTPResponse | None = None
        self.problem = "it was not asked yet"
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the stream is connected and everything before it was listed."""
        return self._live.wait(timeout_s)

    def close(self) -> None:
        """End the stream."""
        self._stop.set()
        answer = self._answer
        if answer is not None:
            answer.shutdown()

    def _run(self) -> None:
        pause_s = 0.1
        while not self._stop.is_set():
            try:
                if not self._version:
                    self._list()
                self._follow()
                pause_s = 0.1
                continue
            except Gone:
                self._version = ""
            except _BROKEN as error:
                self.problem = (str(error) or type(error).__name__)[:300]
            self._live.clear()
            self._stop.wait(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  so that brokers do not come all at once
            pause_s = min(pause_s * 2, PAUSE_S_MAX)

    def _list(self) -> None:
        self._restart()
        version = ""
        for page in self._api.pages(self._path, labelSelector=SELECTOR):
            for item in page.get("items") or ():
                self._put(item)
            version = page["metadata"]["resourceVersion"]
        self._finish()
        self._version = version

    def _follow(self) -> None:
        """Follow until the server ends the stream, as it does every few minutes.

        Raises:
            Gone: the server forgot what happened since the last version known here.
            SiteError, urllib3.exceptions.HTTPError, ValueError: the stream broke.
        """
        answer = self._api.open(
            self._path, (5.0, self._stale_s), watch="true", allowWatchBookmarks="true", labelSelector=SELECTOR,
            resourceVersion=self._version, timeoutSeconds=STREAM_S,
        )  # fmt: skip
        self._answer = answer
        try:
            self._live.set()
            for line in answer:
                if self._stop.is_set():
                    return
                self._take(json.loads(line))
        finally:
            self._answer = None
            answer.close()

    def _take(self, event: Json) -> None:
        item = event["object"]
        match event["type"]:
            case "ERROR":
                if item.get("code") == 410:
                    raise Gone(str(item.get("message")))
                raise Unreachable(str(item.get("message"))[:300])
            case "ADDED" | "MODIFIED":
                self._put(item)
            case "DELETED":
                self._drop(item)
        self._version = item["metadata"]["resourceVersion"]


class Watch:
    """What a site's API server told of our Jobs and pods, kept up to date. Safe to share between threads."""

    def __init__(self, api: Api, stale_s: float) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, SeenJob] = {}
        self._pods: dict[str, dict[str, SeenPod]] = {}
        self._fresh_jobs: dict[str, SeenJob] | None = None
        self._fresh_pods: dict[str, dict[str, SeenPod]] | None = None
        self._odd: list[str] = []
        self._streams = (
            Stream(api, "/apis/batch/v1/jobs", self._put_job, self._drop_job,
                   self._begin_jobs, self._swap_jobs, stale_s),
            Stream(api, "/api/v1/pods", self._put_pod, self._drop_pod,
                   self._begin_pods, self._swap_pods, stale_s),
        )  # fmt: skip

    def require_live(self, timeout_s: float) -> None:
        """Wait until both streams are up.

        Raises:
            Unreachable: one is not.
        """
        for stream in self._streams:
            if not stream.wait(timeout_s):
                raise Unreachable(f"the API server does not tell what happens: {stream.problem}")

    def look(self, job_uid: str) -> tuple[SeenJob | None, tuple[SeenPod, ...]]:
        """What is known of one Job and its pods."""
        with self._lock:
            return self._jobs.get(job_uid), tuple(self._pods.get(job_uid, {}).values())

    def kept(self) -> tuple[SeenPod, ...]:
        """One ended pod of each Job whose pods our finalizer keeps."""
        with self._lock:
            ended = ((pod for pod in some.values() if pod.held and pod.over) for some in self._pods.values())
            return tuple(pod for pod in (next(pods, None) for pods in ended) if pod is not None)

    def odd(self) -> tuple[str, ...]:
        """What could not be read since this was last asked."""
        with self._lock:
            odd, self._odd = tuple(self._odd), []
            return odd

    def close(self) -> None:
        """End the streams."""
        for stream in self._streams:
            stream.close()

    def _put_job(self, item: Json) -> None:
        with self._lock:
            seen = self._read(job_of, item)
            if seen is not None and not seen.tombstone:
                jobs = self._jobs if self._fresh_jobs is None else self._fresh_jobs
                jobs[seen.uid] = seen

    def _put_pod(self, item: Json) -> None:
        with self._lock:
            seen = self._read(pod_of, item)
            if seen is not None:
                pods = self._pods if self._fresh_pods is None else self._fresh_pods
                pods.setdefault(seen.job_uid, {})[seen.uid] = seen

    def _read(self, read: Callable[[Json], T], item: Json) -> T | None:
        try:
            return read(item)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if len(self._odd) < 100:
                name = str(item.get("metadata", {}).get("name"))[:100] if isinstance(item, dict) else "?"
                self._odd.append(f"{name!r} of the pool cannot be read: {type(error).__name__} {str(error)[:100]}")
            return None

    def _drop_job(self, item: Json) -> None:
        with self._lock:
            self._jobs.pop(item["metadata"]["uid"], None)

    def _drop_pod(self, item: Json) -> None:
        with self._lock:
            seen = self._read(pod_of, item)
            if seen is not None:
                pods = self._pods.get(seen.job_uid, {})
                pods.pop(seen.uid, None)
                if not pods:
                    self._pods.pop(seen.job_uid, None)

    def _begin_jobs(self) -> None:
        with self._lock:
            self._fresh_jobs = {}

    def _begin_pods(self) -> None:
        with self._lock:
            self._fresh_pods = {}

    def _swap_jobs(self) -> None:
        with self._lock:
            self._jobs, self._fresh_jobs = self._fresh_jobs or {}, None

    def _swap_pods(self) -> None:
        with self._lock:
            self._pods, self._fresh_pods = self._fresh_pods or {}, None

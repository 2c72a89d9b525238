"""The port for a Kubernetes GPU pool: one Job per job, in a namespace per project.

**Nothing is sent twice.** A batch begins by making a Secret of its name: who finds it there comes too late. A Job's
name is the job's own, and the API server has each name once: adoption makes a suspended Job of that name, a
tombstone, so that a request which still travels finds it taken.
"""

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from adapters.arrays import task_name
from adapters.errors import Rejected, SiteError, Uncertain, Unreachable
from adapters.k8s import enrolment, events, logs, manifests
from adapters.k8s.capacity import Capacity
from adapters.k8s.client import Api, Conflict, Json, NotFound
from adapters.k8s.manifests import (
    BATCH,
    CANCELLED,
    FINALIZER,
    REASON,
    TOMBSTONE,
    Payload,
    batch_name,
    require_namespace,
)
from adapters.k8s.seen import SeenJob, SeenPod, job_of, pod_of
from adapters.k8s.settings import K8sSettings
from adapters.k8s.states import attempts_of, attempts_of_tasks, utcnow
from adapters.k8s.waits import Wait, wait_of
from adapters.k8s.watch import Watch
from adapters.port import (
    Absent,
    Accepted,
    Adoption,
    Answer,
    Attempt,
    AttemptState,
    Forecast,
    JobSpec,
    Known,
    LogChunk,
    Observation,
    OutputPiece,
    Outputs,
    Sent,
    SiteEvent,
    SiteFacts,
)

T = TypeVar("T")
U = TypeVar("U")

NO_OUTPUTS = "this pool keeps no files of a job: let it write to the project's data store"
DIRECT_MAX = 200
"""How many jobs that the streams do not show are asked for one by one in one observation."""


class K8sPool:
    """A Kubernetes pool. Safe to share between threads."""

    def __init__(self, settings: K8sSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._opened: Api | None = None
        self._watched: Watch | None = None
        self._spaces: set[str] = set()
        self._capacity = Capacity()
        self._logs = logs.Logs(settings.log_bytes_max)
        self._threads = ThreadPoolExecutor(settings.parallel, thread_name_prefix="k8s")

    # ── the port ──

    def submit(self, batch: str, specs: Sequence[JobSpec]) -> Mapping[str, Answer]:
        """See the port."""
        by_account: dict[str, list[JobSpec]] = defaultdict(list)
        for spec in specs:
            by_account[spec.account].append(spec)
        end = time.monotonic() + self._settings.submit_s_max
        answers: dict[str, Answer] = {}
        for account, some in by_account.items():
            answers |= self._submit_in(account, batch, some, end)
        return answers

    def adopt(self, sent: Sequence[Sent]) -> Mapping[str, Adoption]:
        """See the port."""
        answers: dict[str, Adoption] = {}
        closed: dict[tuple[str, str], SiteError | None] = {}
        for job in sent:
            key = (job.account, job.batch)
            if key not in closed:
                closed[key] = self._close_batch(*key)
        for job, answer in self._side_by_side(lambda job: self._adopt(job, closed[job.account, job.batch]), sent):
            answers[job.name] = answer
        return answers

    def observe(self, known: Sequence[Known]) -> Observation:
        """See the port; jobs that the streams show cost no request."""
        if not known:
            return Observation({}, frozenset())
        watch = self._live()
        attempts: dict[str, tuple[Attempt, ...]] = {}
        absent: set[str] = set()
        unseen: list[Known] = []
        for job in known:
            seen, pods = watch.look(job.site_job_id)
            if seen is None and not pods:
                unseen.append(job)
                continue
            absent |= self._keep(attempts, job, seen, pods)
        for job, told in self._side_by_side(self._directly, unseen[:DIRECT_MAX]):
            if isinstance(told, tuple):
                absent |= self._keep(attempts, job, *told)
            elif isinstance(told, Absent):
                absent.add(job.name)
        return Observation(attempts, frozenset(absent), watch.odd())

    def cancel(self, known: Sequence[Known]) -> Mapping[str, Answer]:
        """See the port; a Job is suspended for good: its pods end with their grace, and it stays to be metered."""
        return {job.name: answer for job, answer in self._side_by_side(self._cancel, known)}

    def read_log(self, account: str, name: str, offset: int, limit_bytes: int, wait_s: float) -> LogChunk:
        """See the port. Of a job over several nodes, the first one's log."""
        require_namespace(account)
        settings = self._settings
        name, _, task = name.partition("_")
        limit_bytes, wait_s = min(limit_bytes, settings.log_bytes_max), min(wait_s, settings.log_wait_s_max)
        index = self._index(account, name, int(task)) if task else None
        if task and index is None:
            return LogChunk(b"", offset, exists=False)
        return self._logs.read(self.api(), account, name, index, offset, limit_bytes, wait_s)

    def site_events(self, account: str, name: str) -> Sequence[SiteEvent]:
        """See the port's Teller."""
        require_namespace(account)
        return events.events_of(self.api(), account, name, self._settings.kueue)

    def list_outputs(self, account: str, name: str, tasks: Sequence[int] | None = None) -> Outputs:
        """See the port: a pod's files go with it."""
        return Outputs((), (NO_OUTPUTS,), exists=False)

    def read_output(
        self, account: str, name: str, path: str, offset: int, limit_bytes: int, task: int | None = None
    ) -> OutputPiece:
        """See the port: a pod's files go with it."""
        raise Rejected(NO_OUTPUTS)

    def expected_start(self, spec: JobSpec) -> Forecast:
        """See the port: Kubernetes tells no time, but what may not begin earlier does not, and room is room now."""
        try:
            body = self._body(spec, Payload("forecast"), "forecast")
        except Rejected as error:
            return Forecast(None, error.reason)
        if spec.begin is not None and spec.begin > utcnow():
            return Forecast(spec.begin)
        if self._settings.kueue is not None:
            return Forecast(None, "the pool's queue does not tell when it would admit a job")
        wanted = self._settings.node_class(spec.gpu_type if spec.gpus else "")
        if self._capacity.has_room(self.api(), wanted, body):
            return Forecast(utcnow())
        return Forecast(None, "no node has room now, and Kubernetes does not tell when one will")

    def put_snapshot(self, account: str, digest: str, archive: Path) -> None:
        """See the port; it is kept in pieces, the first of which is made last."""
        size = archive.stat().st_size
        if size > self._settings.snapshot_bytes_max:
            raise Rejected(
                f"the snapshot is too large for this site: {size} of {self._settings.snapshot_bytes_max} bytes"
            )
        data = archive.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise Rejected("the snapshot's bytes do not have the digest that was promised")
        try:
            self.require_space(account)
            for piece in manifests.snapshot_pieces(account, digest, data):
                self._make(f"/api/v1/namespaces/{account}/secrets", piece)
        except Uncertain as error:
            raise Unreachable(error.reason) from error  # it is asked for again, and what is there stays

    def kept(self) -> Sequence[Known]:
        """See the port's Keeper: the finalizers themselves are the list of what is to be booked."""
        return [Known(pod.job_name, pod.namespace, pod.job_uid, pod.created_at) for pod in self._watch().kept()]

    def forget(self, known: Sequence[Known]) -> Mapping[str, Answer]:
        """See the port's Keeper: their pods may vanish now, and their Jobs do after a while."""
        return {job.name: answer for job, answer in self._side_by_side(self._forget, known)}

    def check(self) -> SiteFacts:
        """See the port."""
        return enrolment.check(self.api(), self._settings)

    def close(self) -> None:
        """See the port."""
        with self._lock:
            if self._watched is not None:
                self._watched.close()
            self._logs.close()
            self._threads.shutdown(wait=False, cancel_futures=True)
            if self._opened is not None:
                self._opened.close()

    # ── sending ──

    def _submit_in(self, account: str, batch: str, specs: Sequence[JobSpec], end: float) -> dict[str, Answer]:
        try:
            require_namespace(account)
        except Rejected as error:
            return {spec.name: Unreachable(error.reason) for spec in specs}
        payload = Payload(batch_name(batch))
        answers: dict[str, Answer] = {}
        bodies: list[tuple[str, Json]] = []
        for spec in specs:
            try:
                bodies.append((spec.name, self._body(spec, payload, batch)))
            except (Rejected, Unreachable) as error:
                answers[spec.name] = error
        if not bodies:
            return answers
        try:
            self.require_space(account)
            self._begin_batch(account, payload)
        except SiteError as error:
            stopped = _known_error(error)
            return answers | {name: stopped for name, _ in bodies}
        sent = self._side_by_side(lambda named: self._send(account, *named, end), bodies)
        return answers | {name: answer for (name, _), answer in sent}

    def _body(self, spec: JobSpec, payload: Payload, batch: str) -> Json:
        """The Job for a spec.

        Raises:
            Rejected: it cannot be asked for, or no node could ever hold it.
            Unreachable: what the nodes offer could not be learnt.
        """
        body = manifests.job(spec, self._settings, payload, batch)
        for each in spec.after:
            if self._live().look(each.site_job_id) == (None, ()):
                raise Unreachable(f"the job {each.site_job_id} that it waits for is not known here (any more)")
        if not self._settings.nodes_grow:
            wanted = self._settings.node_class(spec.gpu_type if spec.gpus else "")
            self._capacity.require(self.api(), wanted, body)
        return body

    def _begin_batch(self, account: str, payload: Payload) -> None:
        """Make the batch's Secrets, the one that is its lock first.

        Raises:
            Uncertain: it was begun or closed before.
            Unreachable: nothing of its jobs was sent.
        """
        path = f"/api/v1/namespaces/{account}/secrets"
        first, *others = payload.secrets(account)
        try:
            self.api().post(path, first)
        except Conflict as error:
            raise Uncertain("this batch was begun or closed before") from error
        except Uncertain as error:
            raise Unreachable(error.reason) from error
        for secret in others:
            self._make(path, secret)

    def _send(self, account: str, name: str, body: Json, end: float) -> Answer:
        if time.monotonic() > end:
            return Unreachable("the site is slow: this job of the batch was not sent any more")
        path = f"/apis/batch/v1/namespaces/{account}/jobs"
        try:
            return Accepted(self.api().post(path, body)["metadata"]["uid"])
        except Conflict:
            return self._send_over(path, name, body)
        except NotFound as error:
            self._spaces.discard(account)
            return Unreachable(f"the project's namespace is gone: {error.reason}")
        except (Rejected, Unreachable, Uncertain) as error:
            return _known_error(error)

    def _send_over(self, path: str, name: str, body: Json) -> Answer:
        """Take the place of a tombstone that the adoption of an earlier batch left.

        One of this very batch means that it was closed while this request waited; a real Job is for adoption to find.
        """
        try:
            metadata = self.api().get(f"{path}/{name}")["metadata"]
            closed = (metadata.get("annotations") or {}).get(TOMBSTONE)
            if closed is None:
                return Uncertain(f"a Job named {name} is there already")
            if closed == body["metadata"]["annotations"][BATCH]:
                return Uncertain("this batch was closed before")
            self.api().delete(f"{path}/{name}", metadata)
            return Accepted(self.api().post(path, body)["metadata"]["uid"])
        except (NotFound, Conflict) as error:
            return Uncertain(f"the name {name} changed hands meanwhile: {error.reason}")
        except (Rejected, Unreachable, Uncertain) as error:
            return _known_error(error)

    def require_space(self, account: str) -> None:
        """Make the project's namespace on first use, with all that confines it.

        Raises:
            Rejected: a namespace of that name is somebody else's.
            Unreachable, Uncertain: as their names say.
        """
        if account in self._spaces:
            return
        require_namespace(account)
        for path, body in manifests.namespace_objects(account, self._settings):
            self._make(path, body)
        there = self.api().get(f"/api/v1/namespaces/{account}")
        wanted = manifests.namespace_objects(account, self._settings)[0][1]["metadata"]["labels"]
        if not wanted.items() <= (there["metadata"].get("labels") or {}).items():
            raise Rejected(f"the namespace {account} lacks the labels that ours have: it is somebody else's")
        self._spaces.add(account)

    def forget_space(self, account: str) -> None:
        """A namespace was removed: the next use makes it anew."""
        self._spaces.discard(account)

    def _make(self, path: str, body: Json) -> None:
        """Create an object; one that is there already is as good."""
        try:
            self.api().post(path, body)
        except Conflict:
            return

    # ── adopting ──

    def _close_batch(self, account: str, batch: str) -> SiteError | None:
        """Take the batch's name, so that it cannot begin any more; return why that is not certain."""
        try:
            self.require_space(account)
            closed = replace_data(Payload(batch_name(batch)).secrets(account)[0])
            self._make(f"/api/v1/namespaces/{account}/secrets", closed)
        except SiteError as error:
            return Unreachable(error.reason)
        return None

    def _adopt(self, job: Sent, problem: SiteError | None) -> Adoption:
        if problem is not None:
            return Unreachable(problem.reason)
        path = f"/apis/batch/v1/namespaces/{job.account}/jobs"
        try:
            return self._found(path, job) or self._bury(path, job)
        except Uncertain as error:
            return error
        except SiteError as error:
            return Unreachable(error.reason)

    def _found(self, path: str, job: Sent) -> Adoption | None:
        """Look a job up. Another batch's tombstone becomes this one's, so that this one does not take its place."""
        try:
            metadata = self.api().get(f"{path}/{job.name}")["metadata"]
            closed = (metadata.get("annotations") or {}).get(TOMBSTONE)
            if closed is None:
                return Accepted(metadata["uid"])
            if closed != job.batch:
                mark = {"uid": metadata["uid"], "annotations": {TOMBSTONE: job.batch}}
                self.api().patch(f"{path}/{job.name}", {"metadata": mark})
        except NotFound:
            return None
        return Absent()

    def _bury(self, path: str, job: Sent) -> Adoption:
        try:
            self.api().post(path, manifests.tombstone(job.name, job.account, job.batch, self._settings))
        except Conflict:
            return self._found(path, job) or Uncertain(f"the name {job.name} changed hands meanwhile")
        return Absent()

    # ── observing ──

    def _keep(
        self, attempts: dict[str, tuple[Attempt, ...]], job: Known, seen: SeenJob | None, pods: Sequence[SeenPod]
    ) -> set[str]:
        """Add what is told of a job, do for it what Kubernetes would not; return the names of tasks it never had."""
        now, never = utcnow(), frozenset[int]()
        if seen is not None and seen.tasks:
            told, never = attempts_of_tasks(seen, pods, job.tasks, self._settings.cluster, now)
        else:
            told = attempts_of(seen, pods, self._settings.cluster, now)
        if told:
            attempts[job.name] = told
        if seen is not None and not seen.finished and seen.cancelled_at is not None and not seen.suspended:
            self._cancel(job, seen.reason)  # the pool's queue let it go once more
        elif seen is not None and not seen.finished and seen.cancelled_at is None:
            self._attend(job, seen, pods, waits=all(attempt.state is AttemptState.QUEUED for attempt in told))
        return {task_name(job.name, task) for task in never}

    def _attend(self, job: Known, seen: SeenJob, pods: Sequence[SeenPod], *, waits: bool) -> None:
        """Kubernetes knows no latest start, no earliest, no order of jobs, and cannot end one index alone.

        What comes of it is told by the next observation.
        """
        now = utcnow()
        if waits and seen.deadline is not None and now > seen.deadline:
            self._cancel(job, "it could not start before its award's end")
        elif waits and seen.suspended and (seen.begin or seen.after) and not seen.queue:
            match wait_of(seen, lambda uid: self._watch().look(uid)[0], now):
                case Wait.NEVER:
                    self._cancel(job, "the job that it waits for did not end as it had to")
                case Wait.OVER:
                    self._let_go(job)
        unwanted = {seen.tasks.index(task) for task in seen.cancelled_tasks if task in seen.tasks}
        for pod in pods:
            if pod.index in unwanted and not pod.over and pod.deleted_at is None:
                self._end_pod(pod)

    def _let_go(self, job: Known) -> None:
        """Let a suspended Job begin, or wait in the pool's queue."""
        metadata: Json = {"uid": job.site_job_id}
        if self._settings.kueue is not None:
            self._change(job, {"metadata": {**metadata, "labels": {manifests.QUEUE_NAME: manifests.QUEUE}}})
        else:
            self._change(job, {"metadata": metadata, "spec": {"suspend": False}})

    def _end_pod(self, pod: SeenPod) -> None:
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        with suppress(SiteError):  # it is asked for again while it is seen
            self.api().delete(path, {"uid": pod.uid})

    def _directly(self, job: Known) -> tuple[SeenJob | None, tuple[SeenPod, ...]] | Absent | SiteError:
        """Ask for one job that the streams do not show: only a fresh answer proves that it is not there."""
        try:
            require_namespace(job.account)
            found = self._find(job)
            pods = self._pods(job)
        except NotFound:
            return Absent()
        except (SiteError, ValueError, KeyError, TypeError) as error:
            return error if isinstance(error, SiteError) else Unreachable(f"it cannot be read: {error}")
        if found is None and not pods:
            return Absent()
        return found, pods

    def _find(self, job: Known) -> SeenJob | None:
        try:
            found = job_of(self.api().get(f"/apis/batch/v1/namespaces/{job.account}/jobs/{job.name}"))
        except NotFound:
            return None
        return found if found.uid == job.site_job_id and not found.tombstone else None

    def _pods(self, job: Known) -> tuple[SeenPod, ...]:
        selector = f"{manifests.JOB}={job.name}"
        pages = self.api().pages(f"/api/v1/namespaces/{job.account}/pods", labelSelector=selector)
        found = [pod_of(item) for page in pages for item in page.get("items") or ()]
        return tuple(pod for pod in found if pod.job_uid == job.site_job_id)

    # ── ending ──

    def _cancel(self, job: Known, reason: str = "") -> Answer:
        """End a job, or one task of an array by the name and id that `task_name` makes."""
        at = utcnow().isoformat(timespec="seconds")
        name, _, task = job.name.partition("_")
        if task:
            whole = replace(job, name=name, site_job_id=job.site_job_id.partition("_")[0])
            return self._cancel_task(whole, int(task), at)
        annotations = {CANCELLED: at} | ({REASON: reason} if reason else {})
        try:
            self.deactivate(job.account, job.site_job_id)
        except SiteError as error:
            return _known_error(error)
        return self._change(
            job, {"metadata": {"uid": job.site_job_id, "annotations": annotations}, "spec": {"suspend": True}}
        )

    def deactivate(self, account: str, job_uid: str) -> None:
        """Have the pool's queue never admit a Job again: it would let go whatever else suspends.

        Raises:
            Rejected, Unreachable, Uncertain: as their names say.
        """
        kueue = self._settings.kueue
        if kueue is None:
            return
        require_namespace(account)
        path = f"/apis/kueue.x-k8s.io/{kueue.api}/namespaces/{account}/workloads"
        with suppress(NotFound):  # neither a queue nor a namespace: nothing lets it go
            for page in self.api().pages(path, labelSelector=f"{manifests.WORKLOAD_OF}={job_uid}"):
                for item in page.get("items") or ():
                    metadata = {"uid": item["metadata"]["uid"]}
                    wish = {"metadata": metadata, "spec": {"active": False}}
                    self.api().patch(f"{path}/{item['metadata']['name']}", wish)

    def _cancel_task(self, job: Known, task: int, at: str) -> Answer:
        """Note the wish, and end the task's pod; one that is made later is ended when it is seen."""
        body = {"metadata": {"uid": job.site_job_id, "annotations": {f"{CANCELLED}-{task}": at}}}
        answer = self._change(job, body)
        try:
            seen = self._find(job) if isinstance(answer, Accepted) else None
            if seen is not None and not seen.finished:
                ended = seen.ended_indexes | seen.failed_indexes
                left = {each for index, each in enumerate(seen.tasks) if index not in ended}
                if left <= set(seen.cancelled_tasks):
                    return self._cancel(job)
                self._attend(job, seen, self._pods(job), waits=False)
        except SiteError as error:
            return _known_error(error)
        return answer

    def _forget(self, job: Known) -> Answer:
        try:
            require_namespace(job.account)
            _, seen = self._watch().look(job.site_job_id)
            for pod in seen or self._pods(job):
                if pod.held:
                    self._release(pod)
        except NotFound:
            return Accepted(job.site_job_id)
        except SiteError as error:
            return _known_error(error)
        keep = {"metadata": {"uid": job.site_job_id}, "spec": {"ttlSecondsAfterFinished": self._settings.keep_s}}
        return self._change(job, keep)

    def _release(self, pod: SeenPod) -> None:
        with suppress(NotFound):
            self.api().take_off(f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}", pod.uid, FINALIZER)

    def _change(self, job: Known, body: Json) -> Answer:
        """Change that very Job; one that is gone, or whose name is another's by now, is as good as changed."""
        try:
            require_namespace(job.account)
            self.api().patch(f"/apis/batch/v1/namespaces/{job.account}/jobs/{job.name}", body)
        except (NotFound, Conflict):
            return Accepted(job.site_job_id)
        except Rejected as error:
            return self._unless_gone(job, error)
        except SiteError as error:
            return _known_error(error)
        return Accepted(job.site_job_id)

    def _unless_gone(self, job: Known, error: Rejected) -> Answer:
        """A patch of another object of that name is refused as an invalid change of its uid: look which it is."""
        try:
            return error if self._find(job) else Accepted(job.site_job_id)
        except SiteError as problem:
            return _known_error(problem)

    # ── what it all needs ──

    def _index(self, account: str, name: str, task: int) -> int | None:
        """The index that Kubernetes gives a task; None where there is no such job or task."""
        try:
            tasks = job_of(self.api().get(f"/apis/batch/v1/namespaces/{account}/jobs/{name}")).tasks
        except NotFound:
            return None
        return tasks.index(task) if task in tasks else None

    def _live(self) -> Watch:
        """The streams, once they are up.

        Raises:
            Unreachable: one is not.
        """
        watch = self._watch()
        watch.require_live(self._settings.answer_s_max)
        return watch

    def api(self) -> Api:
        """The connection, opened when it is first needed."""
        with self._lock:
            if self._opened is None:
                settings = self._settings
                self._opened = Api(
                    settings.kubeconfig, settings.context,
                    connections=settings.parallel + 4, timeout_s=settings.answer_s_max,
                )  # fmt: skip
            return self._opened

    def _watch(self) -> Watch:
        api = self.api()
        with self._lock:
            if self._watched is None:
                self._watched = Watch(api, self._settings.stale_s_max)
            return self._watched

    def _side_by_side(self, do: Callable[[T], U], items: Iterable[T]) -> list[tuple[T, U]]:
        """Do something with each, a few at one time."""
        items = list(items)
        if len(items) < 2:
            return [(item, do(item)) for item in items]
        return list(zip(items, self._threads.map(do, items), strict=True))


def replace_data(secret: Json) -> Json:
    """The Secret of a batch that is closed: its name is taken, nothing is in it."""
    return {**secret, "data": {}}


def _known_error(error: SiteError) -> Rejected | Unreachable | Uncertain:
    """One of the three answers that the port knows."""
    for kind in (Rejected, Unreachable, Uncertain):
        if isinstance(error, kind):
            return error if type(error) is kind else kind(error.reason)  # answers are sorted by their very class
    return Unreachable(error.reason)

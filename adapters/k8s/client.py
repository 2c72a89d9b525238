"""The connection to one API server: the official client's transport, plain JSON, and every failure sorted.

The client's typed models cost more than the request itself on long lists, so answers stay JSON; what it does for
a kubeconfig, certificates, tokens and connections is used as it is.
"""

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes
import urllib3
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from adapters.errors import Rejected, SiteError, Uncertain, Unreachable

Json = dict[str, Any]

ANSWER_BYTES_MAX = 64 << 20
"""Of one page or one object; a page of 500 pods is about 4 MiB."""
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_LINE_BYTES_MAX = 4 << 20
COUNTED_AT_ONCE_MAX = 4
"""How often an object is sent whose making met others at the namespace's quota."""
COUNTED_PAUSE_S = 0.2

_NOT_SENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
_BUSY = (401, 429, 503)
"""Refused before anything was done: the credentials, too many requests, or a server that is not ready."""
_NOT_NOW = (" cannot ", "not yet ready to handle request", "status unknown for quota", "because it is being terminated")
"""Of what is forbidden, that which is no fault of the object: a right that the broker lacks, as all do while a server
that was restarted has not read its roles yet; admission that is not ready; a namespace that goes."""


class NotFound(Rejected):
    """There is no such object."""

    code = "site-not-found"


class Conflict(Rejected):
    """An object of that name is there already, or it changed meanwhile."""

    code = "site-conflict"


class CountedAtOnce(Unreachable):
    """Another request counted the namespace's quota at the same moment: nothing was made, and it may be asked anew.

    It comes with the status of a name that is taken; taken for one, it left jobs uncertain until their adoption.
    """

    code = "site-counted-at-once"


class Gone(SiteError):
    """The server no longer has what happened since then: everything must be listed again."""

    code = "site-gone"


class Api:
    """Requests to one API server. Safe to share between threads."""

    def __init__(self, kubeconfig: Path, context: str | None, *, connections: int, timeout_s: float) -> None:
        configuration = kubernetes.client.Configuration()
        try:
            kubernetes.config.load_kube_config(  # type: ignore[no-untyped-call]
                str(kubeconfig), context, client_configuration=configuration, persist_config=False
            )
        except (ConfigException, OSError, ValueError, TypeError) as error:
            raise Unreachable(f"the kubeconfig of the site cannot be used: {error}") from error
        configuration.connection_pool_maxsize = connections
        configuration.retries = False
        self._client = kubernetes.client.ApiClient(configuration)
        self._timeout_s = timeout_s

    def get(self, path: str, **query: Any) -> Json:
        """Read one object or one page.

        Raises:
            NotFound: it does not exist.
            Unreachable: nothing was learnt.
        """
        try:
            return self._ask("GET", path, query)
        except NotFound:
            raise
        except (Uncertain, Rejected) as error:
            raise Unreachable(error.reason) from error

    def dated(self, path: str) -> tuple[Json, str | None]:
        """Read one object, and when the server says that it answered.

        Raises:
            Unreachable: nothing was learnt.
        """
        try:
            answer = self._request("GET", path, {}, None, None, (5.0, self._timeout_s))
            data = _whole(answer)
            if answer.status != 200:
                raise Unreachable(f"the API server refused: {_message(data)}")
            return dict(json.loads(data)), answer.headers.get("Date")
        except (urllib3.exceptions.HTTPError, ValueError, Uncertain) as error:
            raise Unreachable(f"the API server did not answer: {_words(error)}") from error

    def post(self, path: str, body: Json) -> Json:
        """Create an object.

        Raises:
            Conflict: one of that name exists.
            Rejected, Unreachable, Uncertain: as their names say.
        """
        for _ in range(COUNTED_AT_ONCE_MAX - 1):
            try:
                return self._ask("POST", path, {}, body)
            except CountedAtOnce:
                time.sleep(random.uniform(0, COUNTED_PAUSE_S))  # noqa: S311  so that they do not meet again
        return self._ask("POST", path, {}, body)

    def patch(self, path: str, body: Json) -> Json:
        """Merge some fields into an object; `metadata.uid` in the body makes it that very object's.

        Raises:
            NotFound, Conflict, Rejected, Unreachable, Uncertain: as their names say.
        """
        return self._ask("PATCH", path, {}, body, MERGE_PATCH)

    def take_off(self, path: str, uid: str, finalizer: str) -> None:
        """Take one finalizer off that very object, and nobody else's.

        Raises:
            NotFound, Conflict, Rejected, Unreachable, Uncertain: as their names say.
        """
        body = {"metadata": {"uid": uid, "$deleteFromPrimitiveList/finalizers": [finalizer]}}
        self._ask("PATCH", path, {}, body, STRATEGIC_PATCH)

    def delete(self, path: str, metadata: Json) -> None:
        """Delete that very object, as it was when its metadata was read.

        Raises:
            NotFound, Conflict, Rejected, Unreachable, Uncertain: as their names say.
        """
        preconditions = {key: metadata[key] for key in ("uid", "resourceVersion") if key in metadata}
        body = {"preconditions": preconditions, "propagationPolicy": "Background"}
        self._ask("DELETE", path, {}, body)

    def pages(self, path: str, limit: int = 500, **query: Any) -> Iterator[Json]:
        """List everything, page by page.

        Raises:
            Gone: it took so long that the list could not be finished.
            Unreachable: nothing was learnt.
        """
        token = ""
        while True:
            page = self.get(path, limit=limit, **({"continue": token} if token else {}), **query)
            yield page
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return

    def open(self, path: str, timeout_s: tuple[float, float], **query: Any) -> urllib3.HTTPResponse:
        """Begin an answer that is read in pieces; whoever asked closes it.

        Raises:
            NotFound, Rejected, Gone, Unreachable: as their names say.
        """
        try:
            answer = self._request("GET", path, query, None, None, timeout_s)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"the API server did not answer: {_words(error)}") from error
        if answer.status != 200:
            with answer:
                _raise(answer.status, _message(answer.read(_LINE_BYTES_MAX)))
        return answer

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()  # type: ignore[no-untyped-call]

    def _ask(self, method: str, path: str, query: Mapping[str, Any], body: Json | None = None, kind: str = "") -> Json:
        try:
            answer = self._request(method, path, query, body, kind, (5.0, self._timeout_s))
            data = _whole(answer)
        except _NOT_SENT as error:
            raise Unreachable(f"the API server cannot be reached: {_words(error)}") from error
        except urllib3.exceptions.HTTPError as error:
            raise Uncertain(f"the connection broke before the answer came: {_words(error)}") from error
        if method == "POST" and answer.status == 409 and not _is_taken(data):
            raise CountedAtOnce(_message(data))
        if answer.status >= 300:
            _raise(answer.status, _message(data))
        try:
            return dict(json.loads(data))
        except ValueError as error:
            raise Uncertain("the API server's answer is not whole") from error

    def _request(
        self, method: str, path: str, query: Mapping[str, Any], body: Json | None, kind: str | None,
        timeout_s: tuple[float, float],
    ) -> urllib3.HTTPResponse:  # fmt: skip
        """Hand one request to the official client's transport, with its address and its credentials.

        Raises:
            urllib3.exceptions.HTTPError: the transport failed.
        """
        headers = {"Accept": "application/json", "Content-Type": kind or "application/json"}
        parameters: Sequence[tuple[str, Any]] = list(query.items())
        _, url, sent, data, _ = self._client.param_serialize(
            method, path, query_params=parameters, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        rest: Any = self._client.rest_client
        try:
            answer = rest.request(method, url, sent, data, _request_timeout=timeout_s)
        except ApiException as error:  # the client words a failed handshake so
            raise urllib3.exceptions.SSLError(str(error.reason)) from error
        response: urllib3.HTTPResponse = answer.response
        return response


def _whole(answer: urllib3.HTTPResponse) -> bytes:
    """Read an answer to its end, so that its connection serves the next request."""
    data = answer.read(ANSWER_BYTES_MAX + 1)
    if len(data) > ANSWER_BYTES_MAX:
        answer.close()
        raise Uncertain(f"the API server's answer is longer than {ANSWER_BYTES_MAX} bytes")
    answer.drain_conn()
    answer.release_conn()
    return data


def _raise(status: int, message: str) -> None:
    match status:
        case 404:
            raise NotFound(message)
        case 403 if any(words in message.partition("forbidden: ")[2][:200] for words in _NOT_NOW):
            raise Unreachable(f"the API server does not let us now: {message}")
        case 409:
            raise Conflict(message)
        case 410:
            raise Gone(message)
        case _ if status in _BUSY:
            raise Unreachable(f"the API server refused to serve us now: {message}")
        case _ if status >= 500:
            raise Uncertain(f"the API server failed: {message}")
        case _:
            raise Rejected(message)


def _message(data: bytes) -> str:
    """The server's own sentence."""
    try:
        said = json.loads(data)
        return str(said["message"])[:1000]
    except (ValueError, KeyError, TypeError):
        return data[:300].decode(errors="replace").strip() or "it gave no reason"


def _is_taken(data: bytes) -> bool:
    """Whether a conflict is about the name: admission has others."""
    try:
        return bool(json.loads(data)["reason"] == "AlreadyExists")
    except (ValueError, KeyError, TypeError):
        return True  # then it is for adoption to find out


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:300]

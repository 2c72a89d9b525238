"""Which GPU each pod of this node holds, as kubelet's pod-resources socket tells (its API v1).

Here is all that a node agent needs of it. The messages are a few nested fields, so they are read here rather than by
generated code; fields that a later kubelet adds are passed over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
METHOD = "/v1.PodResourcesLister/List"
ANSWER_S_MAX = 5.0
ANSWER_BYTES_MAX = 16 << 20


class PodResourcesUnavailable(Exception):
    """Kubelet did not say which pod holds which device; the sentence says why. That is unknown, never none."""


@dataclass(frozen=True, slots=True)
class HeldDevices:
    """Devices of one kind that one container of a pod holds."""

    namespace: str
    pod: str
    container: str
    resource: str
    """Such as `nvidia.com/gpu` or `nvidia.com/mig-1g.10gb`."""
    devices: tuple[str, ...]
    """As the device plugin names them: NVIDIA's gives UUIDs, of a GPU or of a MIG slice."""


def held_devices(socket: Path = SOCKET) -> list[HeldDevices]:
    """Return what all containers of this node hold, in kubelet's order.

    Raises:
        PodResourcesUnavailable: kubelet did not answer, or not in a form that is understood.
    """
    import grpc

    options = [("grpc.max_receive_message_length", ANSWER_BYTES_MAX)]
    try:
        with grpc.insecure_channel(f"unix://{socket}", options=options) as channel:
            call: Any = channel.unary_unary(METHOD)  # bytes both ways
            answer: bytes = call(b"", timeout=ANSWER_S_MAX)
    except grpc.RpcError as error:
        raise PodResourcesUnavailable(f"kubelet does not answer at {socket}: {error.code()}") from error
    return read(answer)


def read(answer: bytes) -> list[HeldDevices]:
    """Read a ListPodResourcesResponse.

    Raises:
        PodResourcesUnavailable: it is none.
    """
    try:
        return [
            held for number, pod in _fields(answer) if number == 1 and isinstance(pod, bytes) for held in _of_pod(pod)
        ]
    except (IndexError, ValueError) as error:
        raise PodResourcesUnavailable("kubelet's answer is not a list of pods' resources") from error


def _of_pod(data: bytes) -> Iterator[HeldDevices]:
    fields = list(_fields(data))
    name, namespace = _text(fields, 1), _text(fields, 2)
    for container in _nested(fields, 3):
        own = list(_fields(container))
        held: dict[str, list[str]] = {}  # kubelet lists devices of one kind one by one
        for devices in _nested(own, 2):
            kinds = list(_fields(devices))
            held.setdefault(_text(kinds, 1), []).extend(device.decode() for device in _nested(kinds, 2))
        for resource, ids in held.items():
            yield HeldDevices(namespace, name, _text(own, 1), resource, tuple(ids))


Field = tuple[int, bytes | int]


def _text(fields: list[Field], number: int) -> str:
    """The last of that number counts, as protocol buffers have it; empty where there is none."""
    found = _nested(fields, number)
    return found[-1].decode() if found else ""


def _nested(fields: list[Field], number: int) -> list[bytes]:
    return [value for each, value in fields if each == number and isinstance(value, bytes)]


def _fields(data: bytes) -> Iterator[Field]:
    """Take a message apart.

    Raises:
        IndexError, ValueError: it is none.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 2:
                size, at = _varint(data, at)
                if at + size > len(data):
                    raise ValueError("a field is longer than its message")
                yield key >> 3, data[at : at + size]
                at += size
            case 1 | 5 as kind:
                size = 8 if kind == 1 else 4
                if at + size > len(data):
                    raise ValueError("a field is longer than its message")
                yield key >> 3, data[at : at + size]
                at += size
            case kind:
                raise ValueError(f"wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")

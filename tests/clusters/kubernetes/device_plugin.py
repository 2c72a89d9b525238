"""A device plugin that offers eight GPUs that do not exist, so that a real kubelet counts and names them.

Run as `device_plugin.py FOLDER RESOURCE COUNT`, FOLDER being kubelet's folder of plugins. The messages are a few
fields long, so they are put together here rather than by generated code.
"""

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

SOCKET = "idf-fake-gpus.sock"
VERSION = "v1beta1"
LOOK_S = 0.5


def field(number: int, data: bytes) -> bytes:
    """One length-delimited field of a protocol buffer."""
    size, length = b"", len(data)
    while length > 0x7F:
        size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + data


def containers_in(request: bytes) -> int:
    """How many containers an AllocateRequest is about: it repeats field 1 for each."""
    count = position = 0
    while position < len(request):
        position += 1
        size = shift = 0
        while True:
            byte = request[position]
            position, size, shift = position + 1, size | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        position, count = position + size, count + 1
    return count


class Gpus(grpc.GenericRpcHandler):
    """The service that kubelet calls: which devices there are, and what a container is given with them."""

    def __init__(self, count: int) -> None:
        self._devices = b"".join(
            field(1, field(1, f"GPU-{number}".encode()) + field(2, b"Healthy")) for number in range(count)
        )

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        match details.method.rpartition("/")[2]:
            case "ListAndWatch":
                return grpc.unary_stream_rpc_method_handler(self._list)
            case "Allocate":
                return grpc.unary_unary_rpc_method_handler(lambda asked, _: field(1, b"") * containers_in(asked))
            case "GetDevicePluginOptions" | "GetPreferredAllocation" | "PreStartContainer":
                return grpc.unary_unary_rpc_method_handler(lambda *_: b"")
        return None

    def _list(self, _: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield self._devices
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait()


def serve(folder: Path, resource: str, count: int) -> None:
    """Offer the devices for ever. A kubelet that restarts empties the folder and makes its socket anew."""
    while True:
        kubelet = folder / "kubelet.sock"
        if not kubelet.exists():
            time.sleep(LOOK_S)
            continue
        born = kubelet.stat().st_ino
        server = grpc.server(ThreadPoolExecutor(8), handlers=[Gpus(count)])
        server.add_insecure_port(f"unix://{folder / SOCKET}")
        server.start()
        try:
            _register(kubelet, resource)
            while (folder / SOCKET).exists() and kubelet.stat().st_ino == born:
                time.sleep(LOOK_S)
        except (grpc.RpcError, FileNotFoundError) as error:
            print(f"again: {error}", file=sys.stderr, flush=True)
            time.sleep(LOOK_S)
        server.stop(None)
        (folder / SOCKET).unlink(missing_ok=True)


def _register(kubelet: Path, resource: str) -> None:
    words = (VERSION, SOCKET, resource)
    request = b"".join(field(number, word.encode()) for number, word in enumerate(words, 1))
    with grpc.insecure_channel(f"unix://{kubelet}") as channel:
        channel.unary_unary(f"/{VERSION}.Registration/Register")(request, timeout=5)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))

"""A TCP proxy that cuts: it passes bytes on, and closes both sides once so many have gone one way."""

import socket
import threading
from contextlib import suppress

TO_SITE, FROM_SITE = "to the site", "from the site"


class CuttingProxy:
    """Listens on loopback and passes every connection on to one address."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._left: dict[str, int] = {}
        self._open: set[socket.socket] = set()
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def cut_after(self, direction: str, size: int) -> None:
        """Cut the connection on which the next `size` bytes of this direction are used up, once."""
        with self._lock:
            self._left[direction] = size

    def cut_all(self) -> None:
        """Cut every connection that is open now."""
        with self._lock:
            ends, self._open = self._open, set()
            self.cuts += len(ends) // 2
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def let_pass(self) -> None:
        """Cut nothing any more."""
        with self._lock:
            self._left.clear()

    def close(self) -> None:
        """Take no further connection."""
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            for source, target, direction in ((near, far, TO_SITE), (far, near, FROM_SITE)):
                threading.Thread(target=self._pass_on, args=(source, target, direction), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        with suppress(OSError):
            while some := source.recv(1 << 16):
                allowed = self._allowed(direction, len(some))
                target.sendall(some[:allowed])
                if allowed < len(some):
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            with self._lock:
                self._open.discard(end)
            end.close()

    def _allowed(self, direction: str, size: int) -> int:
        """Return how many of these bytes may pass; fewer than all where the cut falls into them."""
        with self._lock:
            if direction not in self._left:
                return size
            left = self._left[direction]
            if left >= size:
                self._left[direction] = left - size
                return size
            del self._left[direction]
            self.cuts += 1
            return left

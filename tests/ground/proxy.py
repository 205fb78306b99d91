"""A TCP proxy in front of the API server whose line a test can cut."""

import contextlib
import socket
import threading

from ground.control_plane import free_ports


class Proxy:
    """Forwards connections to a port of the loopback while it is open."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.port = free_ports(1)[0]
        self._server = socket.create_server(("127.0.0.1", self.port))
        self._open = True
        self._lock = threading.Lock()
        self._flow = threading.Event()
        self._flow.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Base address of the API server, by way of this proxy."""
        return f"https://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        self._flow.set()
        with self._lock:
            self._open = False
            for each in self._sockets:
                _end(each)
            self._sockets.clear()

    def restore(self) -> None:
        """Let everything through again."""
        self._flow.set()
        with self._lock:
            self._open = True

    def stall(self) -> None:
        """Keep what either side says to itself, over connections that look alive."""
        self._flow.clear()

    def close(self) -> None:
        """End for good."""
        self.cut()
        _end(self._server)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                target = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                client.close()
                continue
            with self._lock:
                if not self._open:
                    _end(client)
                    _end(target)
                    continue
                self._sockets += [client, target]
            for pair in ((client, target), (target, client)):
                threading.Thread(target=_pump, args=(*pair, self._flow), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, flow: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            flow.wait()
            sink.sendall(data)
    _end(source)
    _end(sink)


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()

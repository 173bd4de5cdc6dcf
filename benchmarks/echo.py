"""A server that sends back what it gets, until its stdin ends; it prints its port. So a path's round trip is measured.

python -m benchmarks.echo
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from statistics import median


def round_trip(address: tuple[str, int], count: int) -> float:
    """Seconds until a byte is back: the median of `count`."""
    found = []
    with socket.create_connection(address, timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            began = time.perf_counter()
            client.sendall(b"x")
            client.recv(1)
            found.append(time.perf_counter() - began)
    return median(found)


def _serve(client: socket.socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while data := client.recv(4096):
            client.sendall(data)
    except OSError:
        pass
    finally:
        client.close()


def main() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)

    def accept() -> None:
        while True:
            threading.Thread(target=_serve, args=[server.accept()[0]], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()

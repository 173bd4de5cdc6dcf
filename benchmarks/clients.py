"""Small clients to compare with, each in a process of its own: `python -m benchmarks.clients WHAT ... < seats.json`.

They need their library in the interpreter that runs them, and nothing else. What they print is one JSON number.
A seat is [host, port]; commands go over one connection per seat and one channel per command, connects excluded.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

Seat = tuple[str, int]
Runner = Callable[[str], None]


def libssh(seat: Seat, user: str, key: str) -> Runner:
    options, keys = import_module("ssh.options"), import_module("ssh.key")
    session = import_module("ssh.session").Session()
    session.options_set_port(seat[1])
    session.options_set(options.HOST, seat[0])
    session.options_set(options.USER, user)
    session.options_set_int_val(options.NODELAY, 1)
    session.connect()
    session.userauth_publickey(keys.import_privkey_file(key))

    def run(command: str) -> None:
        channel = session.channel_new()
        channel.open_session()
        channel.request_exec(command)
        while channel.read()[0] > 0:
            pass
        if channel.get_exit_status() != 0:
            raise SystemExit("a command failed")
        channel.close()

    run("true")
    return run


def libssh2(seat: Seat, user: str, key: str) -> Runner:
    sock = socket.create_connection(seat)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    session = import_module("ssh2.session").Session()
    session.handshake(sock)
    session.userauth_publickey_fromfile(user, key)

    def run(command: str, sock: socket.socket = sock) -> None:
        channel = session.open_session()
        channel.execute(command)
        while channel.read()[0] > 0:
            pass
        channel.wait_closed()
        if channel.get_exit_status() != 0:
            raise SystemExit("a command failed")
        channel.close()

    run("true")
    return run


def threaded(
    kind: Callable[[Seat, str, str], Runner], seats: list[Seat], user: str, key: str, count: int
) -> float:
    """Seconds for `count` times `true`, one thread per seat, each taking the next command when it is free."""
    left = iter(range(count))
    lock = threading.Lock()
    runners = [kind(seat, user, key) for seat in seats]

    def work(run: Runner) -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            run("true")

    threads = [threading.Thread(target=work, args=(run,)) for run in runners]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


async def _asyncssh_connections(seats: list[Seat], user: str, key: str) -> list[Any]:
    """Connections to all seats in parallel, 64 at once and 8 to a server, as a server allows."""
    import asyncssh

    in_all = asyncio.Semaphore(64)
    at_one: dict[Seat, asyncio.Semaphore] = {}

    async def connect(seat: Seat) -> Any:
        async with at_one.setdefault(seat, asyncio.Semaphore(8)), in_all:
            return await asyncssh.connect(
                *seat,
                username=user,
                client_keys=[key],
                known_hosts=None,
                config=None,
                gss_host=None,
                encryption_algs=["aes128-gcm@openssh.com"],
            )

    return await asyncio.gather(*map(connect, seats))


async def asyncssh_connect(seats: list[Seat], user: str, key: str, count: int) -> float:
    """Seconds until all seats are connected."""
    import asyncssh  # noqa: F401 -- not to be measured

    began = time.perf_counter()
    await _asyncssh_connections(seats, user, key)
    return time.perf_counter() - began


async def asyncssh_queue(seats: list[Seat], user: str, key: str, count: int) -> float:
    """Seconds for `count` times `true`, each on the next free seat."""
    connections = await _asyncssh_connections(seats, user, key)
    left = iter(range(count))

    async def work(connection: Any) -> None:
        for _ in left:
            result = await connection.run("true", encoding=None)
            if result.exit_status != 0:
                raise SystemExit("a command failed")

    began = time.perf_counter()
    await asyncio.gather(*map(work, connections))
    return time.perf_counter() - began


async def asyncssh_rounds(seats: list[Seat], user: str, key: str, count: int) -> float:
    """Seconds for `count` rounds of `true` on all seats in lock-step."""
    connections = await _asyncssh_connections(seats, user, key)
    began = time.perf_counter()
    for _ in range(count):
        results = await asyncio.gather(*(c.run("true", encoding=None) for c in connections))
        if any(r.exit_status != 0 for r in results):
            raise SystemExit("a command failed")
    return time.perf_counter() - began


def parallel_ssh_rounds(seats: list[Seat], user: str, key: str, count: int) -> float:
    """The same with the parallel-ssh library; one round before, which connects."""
    config = import_module("pssh.config").HostConfig
    configs = [config(port=port, user=user, private_key=key) for _, port in seats]
    client = import_module("pssh.clients").ParallelSSHClient(
        [host for host, _ in seats], host_config=configs, pool_size=len(seats), num_retries=1
    )

    def round_() -> None:
        output = client.run_command("true")
        client.join(output)
        if any(one.exit_code != 0 for one in output):
            raise SystemExit("a command failed")

    round_()
    began = time.perf_counter()
    for _ in range(count):
        round_()
    return time.perf_counter() - began


def main() -> None:
    what, user, key, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    seats: list[Seat] = [(host, port) for host, port in json.load(sys.stdin)]
    if what in ("libssh", "libssh2"):
        seconds = threaded({"libssh": libssh, "libssh2": libssh2}[what], seats, user, key, count)
    elif what == "parallel-ssh":
        seconds = parallel_ssh_rounds(seats, user, key, count)
    else:
        ways = {"connect": asyncssh_connect, "queue": asyncssh_queue, "rounds": asyncssh_rounds}
        seconds = asyncio.run(ways[what.removeprefix("asyncssh-")](seats, user, key, count))
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

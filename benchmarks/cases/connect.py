"""Connecting to 64, 256 and 1,000 sub-nodes, opening their sessions, and the controller's memory."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from benchmarks.bench import Bench, at_most, below, compared
from benchmarks.controller import hosts_yaml
from benchmarks.measure import Figure, run, used, wait_for
from benchmarks.peers import seats
from benchmarks.report import Row, Section


def run_case(bench: Bench) -> Section:
    nodes = bench.field.nodes(8)
    rows: list[Row] = []
    for count in (16,) if bench.smoke else (64, 256, 1000):
        addresses = seats(bench.field, nodes, count)
        shells: list[float] = []
        peaks: list[float] = []

        def pegasus(count: int = count, shells: list[float] = shells) -> float:
            """Pegasus's connector alone, as the peer is asyncssh alone; then a shell on every connection."""
            names = [nodes[n % len(nodes)] for n in range(count)]
            words = [sys.executable, "-m", "benchmarks.connecting", *names]
            connects, sessions = json.loads(run(words, env=bench.field.environment()).output)
            shells.append(connects + sessions)
            return float(connects)

        def whole(count: int = count, peaks: list[float] = peaks) -> float:
            """A round begins when all are connected, so the first attempt tells when that was."""
            queue = bench.queue(hosts_yaml(nodes, count // len(nodes)), "- sleep 5\n")
            began = time.time()
            process = queue.spawn("b")
            try:
                wait_for(queue.attempts, "the first round", every=0.05)
                attempts = queue.attempts()
                peaks.append(used(process.pid)[1])
            finally:
                process.kill()
                process.wait(60)
            assert len(attempts) == count, f"{len(attempts)} of {count} were connected"
            return min(a.began for a in attempts) - began

        def plain(count: int = count, addresses: list[tuple[str, int]] = addresses) -> float:
            return bench.peers.client(bench.field, "asyncssh-connect", addresses, count)

        ways: dict[str, Callable[[], float]] = {"pegasus": pegasus, "asyncssh.connect": plain, "whole": whole}
        found = bench.rounds(ways, most=99 if count < 1000 else 2)
        found["shells"] = Figure(tuple(shells)) if shells else found["pegasus"]
        what = f"{count:,} connections"
        rows.append(compared(what, "s", found, "pegasus", "asyncssh.connect", at_most(1.2)))
        rows.append(compared("with a shell that answers on each", "s", found, "shells", "asyncssh.connect"))
        rows.append(compared("from pegasus b to its first round", "s", found, "whole", "asyncssh.connect"))
        if peaks:
            target = below(80) if count == 1000 else None
            rows.append(Row(f"{count:,}: controller's memory", "MB", Figure(tuple(peaks)), target=target))
    notes = (
        "64 at once, 8 to a node; imports counted only from the start of the whole pegasus b, where the queue is "
        "read and the first round recorded, too",
    )
    return Section("connect", "connecting, 8 nodes", tuple(rows), notes)

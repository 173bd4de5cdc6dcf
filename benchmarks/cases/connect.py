"""Opening the sessions of 64, 256 and 1,000 sub-nodes, and the controller's memory."""

from __future__ import annotations

import time

from benchmarks.bench import Bench, at_most, below, compared
from benchmarks.controller import hosts_yaml
from benchmarks.measure import Figure, used, wait_for
from benchmarks.peers import seats
from benchmarks.report import Row, Section


def run_case(bench: Bench) -> Section:
    nodes = bench.field.nodes(8)
    rows: list[Row] = []
    for count in (16,) if bench.smoke else (64, 256, 1000):
        addresses = seats(bench.field, nodes, count)
        peaks: list[float] = []

        def pegasus(count: int = count, peaks: list[float] = peaks) -> float:
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

        found = bench.rounds({"pegasus": pegasus, "asyncssh.connect": plain}, most=3 if count < 1000 else 2)
        rows.append(compared(f"{count:,} sub-nodes", "s", found, "pegasus", "asyncssh.connect", at_most(1.2)))
        if peaks:
            target = below(80) if count == 1000 else None
            rows.append(Row(f"{count:,}: controller's memory", "MB", Figure(tuple(peaks)), target=target))
    notes = (
        "Pegasus: from the start of the process to the first round's start, with a shell that answers on every "
        "sub-node; asyncssh.connect: 64 at once, 8 to a node, imports not counted",
    )
    return Section("connect", "connecting, 8 nodes", tuple(rows), notes)

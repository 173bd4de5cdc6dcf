"""A daemon with 64 sub-nodes and nothing to do: its CPU, and how soon an appended entry starts."""

from __future__ import annotations

import time

from benchmarks.bench import Bench, below
from benchmarks.controller import Daemon, hosts_yaml
from benchmarks.measure import Figure
from benchmarks.report import Row, Section


def run_case(bench: Bench) -> Section:
    nodes = bench.field.nodes(8)
    each = bench.size(8, 1)
    seats = each * len(nodes)
    watch = bench.size(30, 3)
    queue = bench.queue(hosts_yaml(nodes, each), "- sleep 1\n" * seats)
    daemon = Daemon(queue, seats)
    shares, starts = [], []
    try:
        # All have worked once, so all are connected; then the first tidying up is over, too.
        daemon.wait_ended(seats)
        time.sleep(3.0)
        for _ in range(1 if bench.smoke else 2):
            before, _ = daemon.used()
            time.sleep(watch)
            shares.append((daemon.used()[0] - before) / watch * 100)
        for number in range(bench.size(20, 5)):
            began = time.time()
            daemon.append("- true\n")
            starts.append(daemon.wait_ended(seats + number + 1)[-1].began - began)
            time.sleep(0.037)
    finally:
        daemon.stop()
    rows = (
        Row("CPU of an idle daemon", "%", Figure(tuple(shares)), target=below(0.5)),
        Row("an appended entry starts after", "s", Figure(tuple(starts)), target=below(0.2)),
        Row("the slowest of them", "s", Figure((max(starts),)), target=below(0.2)),
    )
    return Section(
        "idle", f"an idle daemon with {seats} sub-nodes", rows, (f"CPU over {watch} s, of one core",)
    )

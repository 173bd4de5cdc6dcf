"""A command over a round trip of 50 ms, connection open."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.bench import Bench, at_most, compared
from benchmarks.echo import round_trip
from benchmarks.measure import run
from benchmarks.report import Section

ROUND_TRIP = 0.050


def run_case(bench: Bench) -> Section:
    jobs = bench.size(40, 8)
    (node,) = bench.field.nodes(1)
    address = bench.field.slow_route(node, ROUND_TRIP / 2)
    config, (seat,) = bench.field.seats([node], 1, mux=True, name="slow", routes={node: address})
    echo = bench.field.slow_echo(ROUND_TRIP / 2)
    near, (beside,) = bench.field.seats([node], 1, mux=True, name="near")

    def pegasus(config: str, name: str) -> float:
        """From one start to the next on the one sub-node: what lies between is exit status, commit, and take."""
        queue = bench.queue(f"- {name}\n", "- true\n" * jobs)
        queue.environment["PEGASUS_SSH_CONFIG"] = config
        queue.run("q")
        attempts = queue.succeeded(jobs)
        return (attempts[-1].ended - attempts[0].began) / jobs

    def master() -> float:
        run(["ssh", "-F", config, seat, "true"])
        began = time.perf_counter()
        for _ in range(jobs):
            run(["ssh", "-F", config, seat, "true"])
        return (time.perf_counter() - began) / jobs

    ways: dict[str, Callable[[], float]] = {
        "pegasus": lambda: pegasus(str(config), seat),
        "an echo": lambda: round_trip(echo, jobs),
        "pegasus, no delay": lambda: pegasus(str(near), beside),
        "ssh, ControlMaster": master,
        "asyncssh channels": lambda: (
            bench.peers.client(bench.field, "asyncssh-queue", [address], jobs) / jobs
        ),
    }
    if "libssh2" in bench.peers.modules:
        ways["libssh2"] = lambda: bench.peers.client(bench.field, "libssh2", [address], jobs) / jobs
    found = bench.rounds(ways, most=5)
    bench.field.close_masters(config, [seat])
    rows = [compared("a job, in round trips", "s", found, "pegasus", "an echo", at_most(1.15))]
    rows += [
        compared("a job", "s", found, "pegasus", name)
        for name in ways
        if name not in ("pegasus", "an echo") and name in found
    ]
    notes = (
        "an echo: a byte there and back over a path of the same delay, which is what a round trip takes there",
        "no delay: the same sub-node reached directly, which is what is added to the round trip",
    )
    return Section("latency", "true over 50 ms, one sub-node, one after the other", tuple(rows), notes)

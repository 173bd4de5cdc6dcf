"""Many short jobs on eight sub-nodes: against C clients, the physical limit, GNU parallel; and with output."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.bench import Bench, at_least, compared
from benchmarks.controller import Queue, hosts_yaml, steady_rate
from benchmarks.field import RAM
from benchmarks.measure import Figure, run
from benchmarks.peers import seats
from benchmarks.report import Row, Section

SEATS = 8


def run_case(bench: Bench) -> Section:
    jobs = bench.size(1000, 150)
    nodes = bench.field.nodes(4)
    addresses = seats(bench.field, nodes, SEATS)
    hosts = hosts_yaml(nodes, SEATS // len(nodes))
    spool = bench.field.directory()
    files: list[float] = []

    def pegasus(line: str, base: Path | None = None, more: str = "") -> float:
        queue = Queue(
            bench.field.directory(base), bench.field.environment(), hosts + more, f"- {line}\n" * jobs
        )
        queue.run("q")
        rate = steady_rate(queue.succeeded(jobs))
        if line != "true" and base is None:
            files.append(_making_a_file(queue.ledger.parent / "logs"))
        return rate

    def client(library: str) -> Callable[[], float]:
        return lambda: jobs / bench.peers.client(bench.field, library, addresses, jobs)

    def local(words: str) -> float:
        """As many at once on this machine, without anything between."""
        shell = f"seq {jobs} | xargs -P{SEATS} -I_ {words}"
        return jobs / run(["sh", "-c", shell]).seconds

    ways = {
        "pegasus": lambda: pegasus("true"),
        "asyncssh channels": client("asyncssh-queue"),
        "xargs setsid sh": lambda: local("setsid -w sh -c true"),
        "pegasus echo": lambda: pegasus("echo hello"),
        "pegasus, no flush": lambda: pegasus("true", RAM),
        "pegasus echo, no flush": lambda: pegasus("echo hello", RAM),
        "xargs sh": lambda: local("sh -c true"),
    }
    ways |= {library: client(library) for library in ("libssh2", "libssh") if library in bench.peers.modules}
    found = bench.rounds(ways)
    # After the others: many files are removed there, and the disk may be slow at making new ones for minutes.
    on_disk = {
        "pegasus": ways["pegasus"],
        "pegasus, spool on disk": lambda: pegasus("true", None, f"  options: {{spool: {spool}}}\n"),
    }
    beside = bench.rounds(on_disk, most=2)
    rows = (
        compared(f"{jobs:,} x true", "/s", found, "pegasus", "libssh2", at_least(1.0)),
        compared("", "/s", found, "pegasus", "libssh", at_least(1.0)),
        compared("", "/s", found, "pegasus", "xargs setsid sh", at_least(0.75)),
        compared("", "/s", found, "pegasus", "xargs sh"),
        compared("", "/s", found, "pegasus", "asyncssh channels"),
        compared(
            f"{jobs:,} x echo, shown and logged", "/s", found, "pegasus echo", "pegasus", at_least(0.85)
        ),
        compared("the same in memory", "/s", found, "pegasus echo, no flush", "pegasus, no flush"),
        Row("making one more file beside the logs", "us", Figure(tuple(files)) if files else None),
        compared("what the flushes cost", "/s", found, "pegasus", "pegasus, no flush"),
        compared("what files on the node cost", "/s", beside, "pegasus", "pegasus, spool on disk"),
    )
    notes = (
        "connects excluded: Pegasus from the first job of the last sub-node to the last end, by its ledger; "
        "the clients by their own clock",
        "no flush, in memory: the queue's directory on a RAM disk, where a flush costs nothing; "
        "spool on disk: the nodes' spools on the disk of the queue",
        "a file takes ten times as long on ext4 without a journal where many have been removed lately; "
        "so queues are put apart from each other (chattr +T)",
    )
    return Section("queue", f"{jobs:,} short jobs, {SEATS} sub-nodes of {len(nodes)} nodes", rows, notes)


def _making_a_file(directory: Path) -> float:
    """Microseconds. What is made stays: to remove it would make the next ones dearer."""
    count = 100
    began = time.perf_counter()
    for number in range(count):
        os.close(os.open(directory / f"probe-{number}", os.O_WRONLY | os.O_CREAT, 0o600))
    return (time.perf_counter() - began) / count * 1e6


def run_whole(bench: Bench) -> Section:
    jobs = bench.size(1000, 60)
    nodes = bench.field.nodes(4)
    hosts = hosts_yaml(nodes, SEATS // len(nodes))

    def pegasus() -> float:
        queue = bench.queue(hosts, "- true\n" * jobs)
        ran = queue.run("q")
        queue.succeeded(jobs)
        return jobs / ran.seconds

    def parallel() -> float:
        config, names = bench.field.seats(nodes, SEATS, mux=True)
        logins = ",".join(f"1/{name}" for name in names)
        words = [
            bench.peers.programs["parallel"],
            "--ssh",
            f"ssh -F {config}",
            "--sshlogin",
            logins,
            "-j",
            "1",
        ]
        began = time.perf_counter()
        run([*words, "true {}"], stdin=b"".join(b"%d\n" % n for n in range(jobs)))
        seconds = time.perf_counter() - began
        bench.field.close_masters(config, names)
        return jobs / seconds

    ways = {"pegasus": pegasus}
    if "parallel" in bench.peers.programs:
        ways["GNU parallel"] = parallel
    found = bench.rounds(ways)
    rows = (
        compared(f"{jobs:,} x true, start to exit", "/s", found, "pegasus", "GNU parallel", at_least(10)),
    )
    notes = ("8 connects and the summary included; GNU parallel with ControlMaster, one slot per master",)
    return Section("queue-whole", f"{jobs:,} short jobs from start to exit", rows, notes)

"""A ledger with 100,000 jobs: the start of a run, one more job, and recovery of 200 jobs that run."""

from __future__ import annotations

import time

from benchmarks.bench import Bench, at_most, below, compared
from benchmarks.controller import Queue, hosts_yaml, steady_rate
from benchmarks.measure import Figure, wait_for
from benchmarks.report import Row, Section
from pegasus_py.core.model import Attempt, End, Job, JobState, Task
from pegasus_py.errors import Place
from pegasus_py.store.batch import Batch, Ended
from pegasus_py.store.ledger import Ledger


def _fill(queue: Queue, count: int) -> None:
    """A ledger of so many jobs that succeeded in an earlier run."""
    queue.ledger.parent.parent.mkdir(mode=0o700)
    queue.ledger.parent.mkdir(mode=0o700)
    with Ledger.open(queue.ledger) as ledger:
        ledger.begin_run("queue")
        for start in range(1, count + 1, 1000):
            attempts = []
            for number in range(start, min(start + 1000, count + 1)):
                task = Task(f"python train.py --seed {number}", place=Place("queue.yaml", number))
                job = Job(number, task, task.command, "node-1/0")
                attempts.append(Attempt(job, 1, "node-1/0", ledger.queue_id, "node-1"))
            ends = [
                Ended(a, End(JobState.SUCCEEDED, 0, "", 1.0), JobState.SUCCEEDED, spooled=False)
                for a in attempts
            ]
            ledger.commit(Batch(jobs=[a.job for a in attempts], started=attempts, ended=ends))
        ledger.end_run("done")


def run_case(bench: Bench) -> Section:
    count = bench.size(100_000, 2_000)
    jobs = bench.size(1_500, 50)
    nodes = bench.field.nodes(4)
    rates: dict[str, list[float]] = {"full": [], "empty": []}

    def first_start(name: str, before: int) -> float:
        """Seconds from the start of the process to the first job's start."""
        queue = bench.queue(hosts_yaml(nodes, 2), "- true\n" * jobs)
        if before:
            _fill(queue, before)
        began = time.time()
        queue.run("q")
        attempts = queue.succeeded(before + jobs)[before:]
        rates[name].append(1000 / steady_rate(attempts))
        return min(a.began for a in attempts) - began

    found = bench.rounds(
        {"full": lambda: first_start("full", count), "empty": lambda: first_start("empty", 0)}, most=5
    )
    per_job = {name: Figure(tuple(values)) for name, values in rates.items() if values}
    running = bench.size(200, 16)
    rows = [
        Row(f"{count:,} jobs: to the first start", "s", found.get("full"), target=below(2.0)),
        compared("", "s", found, "full", "empty"),
        compared(f"{count:,} jobs: one more job", "ms", per_job, "full", "empty", at_most(1.2)),
        Row(
            f"recovery of {running} that run",
            "s",
            Figure(tuple(_recovery(bench, count, running) for _ in range(min(bench.count, 2)))),
        ),
    ]
    notes = (
        "recovery: the controller was killed by KILL with that many running; from the start of the next process, "
        "with all connects, until each job's end (told to them at that start) is in the ledger",
    )
    return Section("ledger", f"{count:,} jobs in the ledger", tuple(rows), notes)


def _recovery(bench: Bench, before: int, running: int) -> float:
    nodes = bench.field.nodes(8)
    flag = bench.field.directory() / "over"
    queue = bench.queue(
        hosts_yaml(nodes, running // 8), f"- while [ ! -e {flag} ]; do sleep 1; done\n" * running
    )
    _fill(queue, before)
    first = queue.spawn("q")
    try:
        wait_for(lambda: len(queue.attempts()) == before + running, f"{running} running jobs", every=0.5)
        # The last ones must be on their nodes, not only in the ledger.
        time.sleep(1.0)
    finally:
        first.kill()
        first.wait(60)
    flag.touch()
    time.sleep(2.0)
    began = time.time()
    queue.run("q")
    attempts = queue.succeeded(before + running)[before:]
    queue.remove()
    return max(a.ended for a in attempts) - began

"""200 MB of lines from one job, and from eight jobs at once with quiet ones beside them."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.bench import Bench, at_least, below, compared
from benchmarks.controller import hosts_yaml
from benchmarks.measure import Figure, run
from benchmarks.report import Row, Section

LINE = "epoch 17 step 20480 loss 0.01234567 accuracy 0.98765 lr 3e-4 grad 1.25 eta 01:23"
MEMORY = 200.0
"""MB that the controller may need with a gigabyte passing through: bounded, is what is meant."""


def _lines(megabytes: int) -> str:
    return f"yes '{LINE}' | head -c {megabytes}M"


def run_case(bench: Bench) -> Section:
    megabytes = bench.size(200, 20)
    nodes = bench.field.nodes(4)
    config, names = bench.field.seats(nodes, 1, mux=True)
    peaks: list[float] = []
    busy: list[float] = []

    def pegasus(out: Path | None = None) -> float:
        queue = bench.queue(hosts_yaml(nodes[:1], 1), f'- "{_lines(megabytes)}"\n')
        try:
            ran = queue.run("q")
            (attempt,) = queue.succeeded(1)
            _check_log(queue.ledger.parent / "logs", megabytes)
            peaks.append(ran.peak)
            busy.append(ran.cpu)
            return megabytes / (attempt.ended - attempt.began)
        finally:
            queue.remove()

    def ssh() -> float:
        run(["ssh", "-F", config, names[0], "true"])
        with Path("/dev/null").open("wb") as null:
            return megabytes / run(["ssh", "-F", config, names[0], _lines(megabytes)], out=null).seconds

    found = bench.rounds({"pegasus": pegasus, "ssh > /dev/null": ssh})
    bench.field.close_masters(config, names)
    rows = [
        compared(f"{megabytes} MB from one job", "MB/s", found, "pegasus", "ssh > /dev/null", at_least(0.5))
    ]
    if peaks:
        rows.append(Row("controller's memory", "MB", Figure(tuple(peaks)), target=below(MEMORY)))
        rows.append(Row("controller's CPU", "s", Figure(tuple(busy))))
    notes = (
        "prefixed to /dev/null and logged; from the start to the end of the attempt, all of its output in the log; "
        "ssh over a master that is open",
    )
    return Section("output", "much output", tuple(rows), notes)


def run_eight(bench: Bench) -> Section:
    megabytes = bench.size(50, 5)
    nodes = bench.field.nodes(4)
    quiet_jobs = bench.size(40, 8)
    config, names = bench.field.seats(nodes, 8, mux=True)
    peaks: list[float] = []
    held: list[float] = []
    alone: list[float] = []

    def pegasus(loud: int = 8) -> float:
        """Ten sub-nodes: eight get a loud job each, the others the quiet ones."""
        jobs = f'- "{_lines(megabytes)}"\n' * loud + "- sleep 0.05; echo quiet\n" * quiet_jobs
        queue = bench.queue(hosts_yaml(nodes[:2], 5 if loud else 1), jobs)
        try:
            ran = queue.run("q")
            attempts = queue.succeeded(loud + quiet_jobs)
            noisy, quiet = attempts[:loud], attempts[loud:]
            if not loud:
                alone.append(statistics.median(a.ended - a.began for a in quiet))
                return 1.0
            _check_log(queue.ledger.parent / "logs", loud * megabytes)
            peaks.append(ran.peak)
            until = max(a.ended for a in noisy)
            held.append(statistics.median(a.ended - a.began for a in quiet if a.began < until))
            return loud * megabytes / (until - min(a.began for a in noisy))
        finally:
            queue.remove()

    def ssh() -> float:
        for name in names:
            run(["ssh", "-F", config, name, "true"])
        together = " & ".join(f'ssh -F {config} {name} "$1" >/dev/null' for name in names)
        return 8 * megabytes / run(["sh", "-c", f"{together} & wait", "sh", _lines(megabytes)]).seconds

    ways = {"pegasus": pegasus, "8 x ssh > /dev/null": ssh, "quiet alone": lambda: pegasus(0)}
    found = bench.rounds(ways, most=3)
    bench.field.close_masters(config, names)
    rows = [
        compared(
            f"8 jobs of {megabytes} MB at once",
            "MB/s",
            found,
            "pegasus",
            "8 x ssh > /dev/null",
            at_least(0.5),
        )
    ]
    if peaks and alone:
        rows.append(Row("controller's memory", "MB", Figure(tuple(peaks)), target=below(MEMORY)))
        rows.append(
            Row("a quiet job of 0.05 s beside them", "s", Figure(tuple(held)), "alone", Figure(tuple(alone)))
        )
    notes = (
        "the medians of quiet jobs that began while a loud one ran; two cores carry servers, jobs and controller",
    )
    return Section("output-eight", "much output from eight jobs", tuple(rows), notes)


def _check_log(logs: Path, megabytes: int) -> None:
    size = sum(file.stat().st_size for file in logs.rglob("*") if file.is_file())
    assert size >= megabytes << 20, f"the logs have {size} bytes of {megabytes} MB"

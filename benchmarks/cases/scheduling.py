"""The scheduler alone, with simulated nodes."""

from __future__ import annotations

from benchmarks import scheduler
from benchmarks.bench import Bench, compared
from benchmarks.measure import Figure
from benchmarks.report import Row, Section, Target


def run_case(bench: Bench) -> Section:
    seats = bench.size(10_000, 500)
    jobs = bench.size(1_000_000, 20_000)
    rates, last, first = [], [], []
    for number in range(1 if bench.smoke else min(bench.count, 2)):
        result = scheduler.run(seats, jobs)
        bench.say(f"round {number + 1}: {result}")
        rates.append(result.per_second)
        # The first tenth fills the sub-nodes and the last empties them.
        last.append(result.parts[-2])
        first.append(result.parts[1])
    parts = {"ninth tenth": Figure(tuple(last)), "second tenth": Figure(tuple(first))}
    rows = (
        Row("decisions", "/s", Figure(tuple(rates)), target=Target(50_000, at_least=True, times=False)),
        compared(
            "the ninth tenth of them",
            "/s",
            parts,
            "ninth tenth",
            "second tenth",
            Target(0.8, at_least=True, times=True),
        ),
    )
    notes = ("a decision starts a job or records its end; what the simulated nodes do is within the time",)
    return Section("scheduler", f"{jobs:,} jobs on {seats:,} simulated sub-nodes", rows, notes)

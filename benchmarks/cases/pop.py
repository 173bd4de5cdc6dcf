"""Popping from queue files of different length and from sweeps of different size, without nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from benchmarks.bench import Bench, below, compared
from benchmarks.report import Row, Section, Target
from pegasus_py.core.entries import consumed_record
from pegasus_py.store.queuefile import QueueFile

SAME = Target(1.5, at_least=False, times=True)


def _pops(queue: QueueFile, count: int, *, flush: bool) -> float:
    """Milliseconds per pop, each under the lock, with its record for the ledger and in consumed.yaml."""
    began = time.perf_counter()
    for number in range(count):
        with queue.hold() as taking:
            task = taking.peek()
            assert task is not None
            taking.take()
            taking.pop_record([consumed_record(task, f"job {number}, 2026-01-01 00:00:00+00:00, node-1")])
            taking.apply()
        if flush:
            queue.sync()
    return (time.perf_counter() - began) / count * 1000


def _measure(bench: Bench, texts: Mapping[str, str], count: int, title: str, case: str) -> Section:
    grown: list[str] = []

    def way(text: str, flush: bool) -> Callable[[], float]:
        def once() -> float:
            directory = bench.field.directory()
            path = directory / "queue.yaml"
            path.write_text(text)
            queue = QueueFile(path)
            found = _pops(queue, count, flush=flush)
            if path.stat().st_size > max(2 * len(text), len(text) + (1 << 17)):
                grown.append(f"the file grew from {len(text):,} to {path.stat().st_size:,} bytes")
            queue.close()
            return found

        return once

    ways = {name: way(text, False) for name, text in texts.items()}
    ways |= {f"{name}, flushed": way(text, True) for name, text in texts.items()}
    found = bench.rounds(ways)
    first, *_ = names = list(texts)
    rows = []
    for name in names:
        rows.append(Row(f"a pop of {name}", "ms", found.get(name), target=below(1.0)))
        if name != first:
            rows.append(compared("", "ms", found, name, first, SAME))
    rows += [Row(f"a pop of {name}, flushed at once", "ms", found.get(f"{name}, flushed")) for name in names]
    notes = (
        f"the mean of the first {count} pops with all compaction that falls due; the ledger's commit not included",
    )
    return Section(case, title, tuple(rows), (*notes, *grown))


def run_case(bench: Bench) -> Section:
    sizes = (1_000, 10_000) if bench.smoke else (1_000, 10_000, 100_000)
    texts = {
        f"{size:,} entries": "".join(f"- python train.py --seed {n} --lr 0.10\n" for n in range(size))
        for size in sizes
    }
    return _measure(bench, texts, bench.size(900, 100), "pop from a flat queue", "pop")


def run_sweep(bench: Bench) -> Section:
    texts = {}
    for digits in (1, 3, 6):
        params = "".join(f"  p{d}: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n" for d in range(digits))
        words = " ".join(f"{{{{ p{d} }}}}" for d in range(digits))
        texts[f"{10**digits:,} combinations"] = f"- command: run {words}\n{params}"
    few = {name: text * (100 if name.startswith("10 ") else 1) for name, text in texts.items()}
    return _measure(bench, few, bench.size(900, 100), "pop from a sweep", "sweep")

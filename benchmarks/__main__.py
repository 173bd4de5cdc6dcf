"""`python -m benchmarks [CASE...]`: run the cases and print the table.

`--smoke` is for CI: a minute, with little of everything; it shows that the benchmarks work and judges nothing.
Python peers are looked for in this interpreter, or in the one that PEGASUS_BENCH_PYTHON names.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.cases import broadcast, connect, idle, latency, ledger, output, pop, queue, scheduling, start
from benchmarks.field import Field
from benchmarks.measure import Unusable
from benchmarks.peers import Peers
from benchmarks.report import Section, as_json, as_text, machine

CASES: dict[str, Callable[[Bench], Section]] = {
    "queue": queue.run_case,
    "queue-whole": queue.run_whole,
    "broadcast": broadcast.run_case,
    "connect": connect.run_case,
    "latency": latency.run_case,
    "output": output.run_case,
    "output-eight": output.run_eight,
    "pop": pop.run_case,
    "sweep": pop.run_sweep,
    "ledger": ledger.run_case,
    "idle": idle.run_case,
    "start": start.run_case,
    "scheduler": scheduling.run_case,
}


def main() -> int:
    options = _options()
    about = machine()
    peers = Peers()
    sections = []
    broken = []
    # However this ends, the servers go.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with Field() as field:
        about |= field.about()
        bench = Bench(field, peers, options.smoke, 1 if options.smoke else options.rounds)
        for name in options.case or CASES:
            print(f"{name} ...", file=sys.stderr, flush=True)
            began = time.monotonic()
            try:
                sections.append(CASES[name](bench))
            except Unusable as error:
                broken.append(f"{name}: {error}")
                print(f"  FAILED: {error}", file=sys.stderr, flush=True)
            bench.say(f"{time.monotonic() - began:.0f} s")
    print(", ".join(f"{key} {value}" for key, value in about.items()) + "; medians of interleaved rounds\n")
    print(as_text(sections, judge=not options.smoke))
    for text in broken:
        print(f"failed: {text}")
    if peers.missing:
        print(f"peers that are not here: {', '.join(peers.missing)}")
    if options.json:
        options.json.write_text(as_json(about, sections, peers.missing) + "\n")
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "case", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all if none is named"
    )
    parser.add_argument("--smoke", action="store_true", help="about a minute; prints, does not judge")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="interleaved rounds (5); long cases do fewer"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    options = parser.parse_args()
    if unknown := set(options.case) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())

"""How long the small commands take: the interpreter and typer are given, what we add is not."""

from __future__ import annotations

import sys

from benchmarks.bench import Bench, at_most, compared
from benchmarks.field import pegasus
from benchmarks.measure import run
from benchmarks.report import Section


def run_case(bench: Bench) -> Section:
    directory = bench.field.directory()
    (directory / "queue.yaml").write_text("- true\n")
    environment = bench.field.environment()
    times = bench.size(5, 1)

    def way(words: list[str], codes: tuple[int, ...] = (0,)) -> float:
        def once() -> float:
            return run(words, cwd=directory, env=environment, codes=codes).seconds

        return min(once() for _ in range(times))

    ways = {
        "pegasus --help": lambda: way(pegasus("--help")),
        "pegasus stop": lambda: way(pegasus("stop"), (4,)),
        "pegasus status": lambda: way(pegasus("status"), (0, 4)),
        "import typer": lambda: way([sys.executable, "-c", "import typer"]),
        "python": lambda: way([sys.executable, "-c", ""]),
    }
    found = bench.rounds(ways)
    rows = (
        compared("pegasus --help", "s", found, "pegasus --help", "import typer", at_most(1.5)),
        compared("pegasus stop (no controller)", "s", found, "pegasus stop", "import typer", at_most(1.5)),
        compared("pegasus status", "s", found, "pegasus status", "import typer"),
        compared("an empty python", "s", found, "python", "import typer"),
    )
    return Section("start", "start of small commands", rows, (f"each round the best of {times}",))

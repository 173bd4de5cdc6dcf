"""`python -m tests.sim --seed 123` replays a seed with its story; `--seeds 1000 --from 5000` tries many."""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.world import World


def replay(seed: int) -> str:
    """The command that tells the story of a seed."""
    return f"python -m tests.sim --seed {seed}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seed", type=int, help="replay this one, telling all that happens")
    parser.add_argument("--seeds", type=int, default=2000, help="how many to try")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        World(arguments.seed, verbose=True).run()
        return 0
    began, steps, failed = time.monotonic(), 0, 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        try:
            steps += World(seed).run().steps
        except Exception as error:  # noqa: BLE001  whatever a seed turns up is reported, and the rest tried
            failed += 1
            print(f"{replay(seed)}   # {error!r}")
    seconds = time.monotonic() - began
    print(f"{arguments.seeds} seeds, {steps} steps, {seconds:.1f} s, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

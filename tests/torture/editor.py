"""An editor for `pegasus lock`: changes the queue as its arguments say, and writes down what it did.

Usage: editor.py NOTES SEED FIRST QUEUE. Adds tasks numbered from FIRST, deletes, moves and comments on others. What
becomes of each task stands in NOTES, one line each: "add N" or "delete N".
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from tests.torture.plan import CALL, number_of

MOST = 5
"""Tasks that one edit adds."""


def main(notes: str, seed: str, first: str, queue: str) -> None:
    rng, path, number = random.Random(int(seed)), Path(queue), int(first)
    lines = path.read_text().splitlines(keepends=True)
    said = []
    for _ in range(rng.randint(1, MOST)):
        entries = [k for k, line in enumerate(lines) if line.startswith("- n=")]
        match rng.choice(["add", "add", "delete", "move", "comment", "touch"]):
            case "add":
                at = rng.choice([0, len(lines), *entries])
                lines.insert(at, f"- n={number}; {CALL}\n")
                said.append(f"add {number}")
                number += 1
            case "delete" if entries:
                said.append(f"delete {number_of(lines.pop(rng.choice(entries)))}")
            case "move" if len(entries) > 1:
                lines.insert(rng.choice(entries), lines.pop(rng.choice(entries)))
            case "comment":
                lines.insert(rng.choice([0, *entries]), "# somebody was here\n")
            case _:
                pass
    text = "".join(lines)
    if rng.random() < 0.5:
        beside = path.with_name(".swap")
        beside.write_text(text)
        os.replace(beside, path)  # noqa: PTH105
    else:
        path.write_text(text)
    with Path(notes).open("a") as file:
        file.write("".join(f"{line}\n" for line in said))


if __name__ == "__main__":
    main(*sys.argv[1:])

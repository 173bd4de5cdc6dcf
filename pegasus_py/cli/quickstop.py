"""`pegasus stop` without typer, for the ordinary ways to write it; anything else is typer's to read or to refuse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pegasus_py.run.requests import ask_stop


def quick_stop(words: Sequence[str]) -> bool:
    """Stop the controller and say so; false, with nothing done, when these words need a real parser."""
    queue, now, wait = Path("queue.yaml"), False, False
    rest = list(words)
    while rest:
        match rest.pop(0):
            case "--now":
                now = True
            case "--wait":
                wait = True
            case "-Q" | "--queue-file" if rest and not rest[0].startswith("-"):
                queue = Path(rest.pop(0))
            case _:
                return False
    print(ask_stop(queue, now=now, wait=wait))
    return True

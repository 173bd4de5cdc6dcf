"""`pegasus stop`: ask the controller of a queue to stop."""

from __future__ import annotations

from typing import Annotated

import typer

from pegasus_py.cli.options import DEFAULT_QUEUE, QueueFile


def stop(
    queue_file: QueueFile = DEFAULT_QUEUE,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the controller has ended.")] = False,
    now: Annotated[bool, typer.Option("--now", help="End what runs: TERM, a grace period, KILL.")] = False,
) -> None:
    """Stop the controller of this queue: nothing new starts, running commands finish."""
    from pegasus_py.run.requests import ask_stop

    print(ask_stop(queue_file, now=now, wait=wait))

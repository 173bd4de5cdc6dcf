"""`pegasus status`: what runs, how jobs ended, what is left."""

from __future__ import annotations

from typing import Annotated

import typer

from pegasus_py.cli.options import DEFAULT_QUEUE, Json, QueueFile


def status(
    queue_file: QueueFile = DEFAULT_QUEUE,
    json: Json = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many ended jobs, the newest first.")] = 20,
) -> None:
    """Show what runs, what has ended and how, what is left in the queue, and what is in the way."""
    from pegasus_py.run.status import show_status

    show_status(queue_file, limit, json=json)

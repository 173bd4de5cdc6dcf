"""`pegasus lock`: edit the queue while its lock is held."""

from __future__ import annotations

from typing import Annotated

import typer

from pegasus_py.cli.options import DEFAULT_QUEUE, QueueFile


def lock(
    queue_file: QueueFile = DEFAULT_QUEUE,
    editor: Annotated[
        str | None,
        typer.Option(
            "--editor", help="The editor, with arguments if it needs some ($VISUAL, $EDITOR, vim, vi, nano)."
        ),
    ] = None,
) -> None:
    """Edit the queue while nothing is taken from it; check it afterwards."""
    from pegasus_py.run.lockedit import edit_locked

    raise typer.Exit(int(edit_locked(queue_file, editor)))

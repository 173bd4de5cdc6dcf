"""`pegasus logs`: the output of a job."""

from __future__ import annotations

from typing import Annotated

import typer

from pegasus_py.cli.options import DEFAULT_QUEUE, QueueFile


def logs(
    job: Annotated[int, typer.Argument(metavar="JOB", min=1, help="The job's number.")],
    queue_file: QueueFile = DEFAULT_QUEUE,
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=1, help="Which attempt; the last if not given.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> None:
    """Print the output of a job, byte for byte (on a terminal: without control characters)."""
    from pegasus_py.run.status import show_log

    show_log(queue_file, job, attempt, follow=follow)

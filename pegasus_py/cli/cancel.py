"""`pegasus cancel`: end jobs with all their processes."""

from __future__ import annotations

from typing import Annotated

import typer

from pegasus_py.cli.options import DEFAULT_QUEUE, QueueFile


def cancel(
    jobs: Annotated[list[int] | None, typer.Argument(metavar="JOB...", help="Job numbers.", min=1)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All jobs that run or wait for a retry.")] = False,
    queue_file: QueueFile = DEFAULT_QUEUE,
) -> None:
    """End jobs: their cancel command, TERM to all their processes, a grace period, KILL."""
    from pegasus_py.errors import ExitCode, UsageError
    from pegasus_py.run.requests import ask_cancel

    if bool(jobs) == everything:
        raise UsageError("name jobs to cancel, or give --all; `pegasus status` lists them")
    lines, is_done = ask_cancel(queue_file, None if everything else jobs)
    for line in lines:
        print(line)
    if not is_done:
        raise typer.Exit(int(ExitCode.JOBS_FAILED))

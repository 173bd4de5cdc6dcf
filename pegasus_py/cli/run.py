"""`pegasus q` and `pegasus b`: run the queue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pegasus_py.cli.options import DEFAULT_HOSTS, DEFAULT_QUEUE, HostsFile, Json, QueueFile, duration

if TYPE_CHECKING:
    from pegasus_py.core.model import JobOptions
    from pegasus_py.core.state import Settings

Daemon = Annotated[
    bool, typer.Option("--daemon", "-d", help="Do not end when the queue is empty; wait for more.")
]
RequireAll = Annotated[
    bool, typer.Option("--require-all", help="Start nothing unless every node can be reached.")
]
AcceptNew = Annotated[
    bool,
    typer.Option("--accept-new", help="Learn unknown host keys into known_hosts; changed ones are refused."),
]
Grace = Annotated[str, typer.Option("--grace", help="Time between TERM and KILL when a job is ended.")]
Timeout = Annotated[str | None, typer.Option("--timeout", help="End attempts that run for longer (30m, 2h).")]
Retries = Annotated[int | None, typer.Option("--retries", min=0, help="How often a job is tried again.")]
RetryDelay = Annotated[str | None, typer.Option("--retry-delay", help="Wait so long before trying again.")]
RetryOn = Annotated[
    str | None,
    typer.Option("--retry-on", help="Which ends are tried again: lost,failed,timed-out (all three)."),
]
LostAfter = Annotated[
    str | None, typer.Option("--lost-after", help="Give a job up when its node is unreachable for so long.")
]
SetAside = Annotated[
    int,
    typer.Option(
        "--set-aside-after",
        min=0,
        help="Rest a sub-node after so many jobs in a row failed there at once; 0: never.",
    ),
]


def queue(
    hosts_file: HostsFile = DEFAULT_HOSTS,
    queue_file: QueueFile = DEFAULT_QUEUE,
    daemon: Daemon = False,
    require_all: RequireAll = False,
    accept_new: AcceptNew = False,
    grace: Grace = "10s",
    timeout: Timeout = None,
    retries: Retries = None,
    retry_delay: RetryDelay = None,
    retry_on: RetryOn = None,
    lost_after: LostAfter = None,
    set_aside_after: SetAside = 5,
    json: Json = False,
) -> None:
    """Queue mode: run each command once, on the next free sub-node."""
    from pegasus_py.core.state import Mode, Settings

    settings = Settings(
        mode=Mode.QUEUE,
        daemon=daemon,
        require_all=require_all,
        defaults=_defaults(timeout, retries, retry_delay, retry_on, lost_after),
        set_aside_after=set_aside_after,
    )
    _run(settings, hosts_file, queue_file, accept_new, grace, json)


def broadcast(
    hosts_file: HostsFile = DEFAULT_HOSTS,
    queue_file: QueueFile = DEFAULT_QUEUE,
    error_aborts: Annotated[
        bool,
        typer.Option("--error-aborts", "-e", help="End after the first command that failed on any node."),
    ] = False,
    daemon: Daemon = False,
    require_all: RequireAll = False,
    accept_new: AcceptNew = False,
    grace: Grace = "10s",
    timeout: Timeout = None,
    retries: Retries = None,
    retry_delay: RetryDelay = None,
    retry_on: RetryOn = None,
    lost_after: LostAfter = None,
    json: Json = False,
) -> None:
    """Broadcast mode: run each command on all sub-nodes, in lock-step."""
    from pegasus_py.core.state import Mode, Settings

    settings = Settings(
        mode=Mode.BROADCAST,
        daemon=daemon,
        error_aborts=error_aborts,
        require_all=require_all,
        defaults=_defaults(timeout, retries, retry_delay, retry_on, lost_after),
    )
    _run(settings, hosts_file, queue_file, accept_new, grace, json)


def _defaults(
    timeout: str | None,
    retries: int | None,
    retry_delay: str | None,
    retry_on: str | None,
    lost_after: str | None,
) -> JobOptions:
    from pegasus_py.core.model import RETRYABLE, JobOptions, JobState
    from pegasus_py.errors import UsageError

    states: tuple[JobState, ...] | None = None
    if retry_on is not None:
        names = [name.strip() for name in retry_on.split(",") if name.strip()]
        known = {str(state): state for state in RETRYABLE}
        for name in names:
            if name not in known:
                raise UsageError(f"--retry-on: {name!r} is none of {', '.join(known)}")
        states = tuple(known[name] for name in names)
    return JobOptions(
        timeout=duration("--timeout", timeout),
        retries=retries,
        retry_delay=duration("--retry-delay", retry_delay),
        retry_on=states,
        lost_after=duration("--lost-after", lost_after),
    )


def _run(
    settings: Settings, hosts_file: Path, queue_file: Path, accept_new: bool, grace: str, json: bool
) -> None:
    from pegasus_py.run.life import Request, live

    seconds = duration("--grace", grace)
    request = Request(
        settings, hosts_file, queue_file, accept_new, 10.0 if seconds is None else seconds, json
    )
    raise typer.Exit(int(live(request)))

"""Options that several verbs share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HostsFile = Annotated[Path, typer.Option("--hosts-file", "-H", help="The hosts file.")]
QueueFile = Annotated[Path, typer.Option("--queue-file", "-Q", help="The queue file.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

DEFAULT_HOSTS = Path("hosts.yaml")
DEFAULT_QUEUE = Path("queue.yaml")


def duration(option: str, text: str | None) -> float | None:
    """Seconds of a duration given on the command line; UsageError names the option."""
    from pegasus_py.core.text import parse_duration
    from pegasus_py.errors import UsageError

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None

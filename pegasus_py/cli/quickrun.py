"""`pegasus q` and `pegasus b` without typer, where no option is to be read: the way they are called most."""

from __future__ import annotations

from pathlib import Path

from pegasus_py.absent import absent

# Its part for TLS, of which we use nothing, takes a tenth of asyncio's import.
with absent("ssl"):
    import asyncio as asyncio

from pegasus_py.core.state import Mode, Settings
from pegasus_py.errors import ExitCode
from pegasus_py.run.life import Request, live

MODES = {"q": Mode.QUEUE, "queue": Mode.QUEUE, "b": Mode.BROADCAST, "broadcast": Mode.BROADCAST}


def quick_run(verb: str) -> ExitCode:
    """Run the queue in the mode that `verb` names, with all options at their defaults."""
    return live(Request(Settings(MODES[verb]), Path("hosts.yaml"), Path("queue.yaml")))

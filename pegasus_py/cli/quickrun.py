"""`pegasus q` and `pegasus b` without typer, where no option is to be read: the way they are called most."""

from __future__ import annotations

from pathlib import Path

from pegasus_py.core.state import Mode, Settings
from pegasus_py.errors import ExitCode
from pegasus_py.lean import without_openssl

MODES = {"q": Mode.QUEUE, "queue": Mode.QUEUE, "b": Mode.BROADCAST, "broadcast": Mode.BROADCAST}


def quick_run(verb: str) -> ExitCode:
    """Run the queue in the mode that `verb` names, with all options at their defaults."""
    without_openssl()
    from pegasus_py.run.life import Request, live

    return live(Request(Settings(MODES[verb]), Path("hosts.yaml"), Path("queue.yaml")))

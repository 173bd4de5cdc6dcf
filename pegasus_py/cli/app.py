"""All verbs of `pegasus` in one place. Each imports what it needs when it runs, so that `--help` starts quickly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

import pegasus_py
from pegasus_py.cli import cancel, demo, lock, logs, run, status, stop

EPILOG = (
    "Exit codes: 0 all jobs succeeded; 1 some did not; 2 wrong input; 3 no node could be reached; "
    "4 another controller holds the queue, or there is none; 5 a file on this machine could not be read or "
    "written; 6 stopped with entries left; 70 a bug in Pegasus."
)

app = typer.Typer(
    name="pegasus",
    help="Run a list of commands on a set of SSH nodes, and lose nothing.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pegasus {pegasus_py.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _add(function: Callable[..., Any], short_help: str, name: str, alias: str | None = None) -> None:
    also = f" (or: {alias})" if alias else ""
    app.command(name, short_help=short_help + also, epilog=EPILOG)(function)
    if alias is not None:
        app.command(alias, hidden=True, epilog=EPILOG)(function)


_add(run.queue, "Run each command once, on the next free sub-node.", "q", "queue")
_add(run.broadcast, "Run each command on all sub-nodes, in step.", "b", "broadcast")
_add(lock.lock, "Edit the queue with its lock held, and check it.", "lock", "l")
_add(stop.stop, "Stop the controller; what runs may finish.", "stop")
_add(cancel.cancel, "End jobs with all their processes.", "cancel")
_add(status.status, "Show what runs, what has ended and how, what is left.", "status")
_add(logs.logs, "Print the output of a job.", "logs")
_add(demo.demo, "Show Pegasus at work on SSH servers of its own.", "demo")

"""Editing the queue with its lock held: nothing is taken from it meanwhile, and the result is checked."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pegasus_py.errors import BadInput, ExitCode, UsageError
from pegasus_py.run.check import check_templates
from pegasus_py.store.queuefile import QueueFile
from pegasus_py.store.queuelock import QueueBusy

FALLBACKS = ("vim", "vi", "nano")
_ENDING = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


def edit_locked(queue_file: Path, editor: str | None) -> ExitCode:
    """Open the queue in an editor. BAD_INPUT when it is left so that it does not parse, else 1 if the editor failed.

    The editor works on the queue file itself, so what the user has saved is kept whatever happens to us.
    """
    command = find_editor(editor, os.environ)
    if not queue_file.parent.is_dir():
        raise UsageError(f"{queue_file}: there is no directory {queue_file.parent}; make it first")
    if queue_file.is_dir():
        raise UsageError(f"{queue_file}: this is a directory; name a file with -Q")
    queue = QueueFile(queue_file)
    try:
        holding = queue.hold(note="pegasus lock")
        holding.__enter__()
    except QueueBusy as error:
        print(f"pegasus: {error}; waiting", file=sys.stderr)
        holding = queue.hold(timeout=math.inf, note="pegasus lock")
        holding.__enter__()
    try:
        return _edit_until_good(queue, queue_file, command)
    finally:
        holding.__exit__(None, None, None)


def find_editor(wish: str | None, environment: Mapping[str, str]) -> list[str]:
    """The editor's command line: the option, $VISUAL, $EDITOR, then what is installed. UsageError if there is none."""
    for source, text in (
        ("--editor", wish),
        ("$VISUAL", environment.get("VISUAL")),
        ("$EDITOR", environment.get("EDITOR")),
    ):
        if not text:
            continue
        try:
            command = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"{source}: {text!r} is not a command line: {error}") from None
        if not command or shutil.which(command[0]) is None:
            raise UsageError(f"{source}: there is no program {text!r}; give another with --editor")
        return command
    for name in FALLBACKS:
        if shutil.which(name):
            return [name]
    raise UsageError(f"no editor found ({', '.join(FALLBACKS)}); name one with --editor or $EDITOR")


def _edit_until_good(queue: QueueFile, path: Path, command: list[str]) -> ExitCode:
    while True:
        status = _run_editor([*command, str(path)])
        if status:
            print(
                f"pegasus: the editor {_how(status)}; {path} is as it was last saved",
                file=sys.stderr,
            )
        try:
            if path.exists():
                check_templates(queue)
            return ExitCode.JOBS_FAILED if status else ExitCode.OK
        except BadInput as error:
            print(f"pegasus: {error}", file=sys.stderr)
            if not _again():
                print(
                    f"pegasus: {path} is kept as it is; nothing is taken from it until it is mended",
                    file=sys.stderr,
                )
                return ExitCode.BAD_INPUT


def _run_editor(command: list[str]) -> int:
    """Signals belong to the editor while it is open, and must not take the lock away under it."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING}

    def as_before() -> None:
        # An ignored signal would be inherited.
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)

    try:
        return subprocess.run(command, check=False, preexec_fn=as_before).returncode
    except OSError as error:
        raise UsageError(f"{command[0]}: {error.strerror}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _how(status: int) -> str:
    return f"ended with status {status}" if status > 0 else f"was ended by {signal.Signals(-status).name}"


def _again() -> bool:
    if not sys.stdin.isatty():
        return False
    try:
        answer = input("Edit again? [Y/n] ")
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        return False
    return answer.strip().lower() not in ("n", "no")

"""The command `pegasus`: the way in, and what becomes of errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from pegasus_py.cli import ctrlc
from pegasus_py.errors import ExitCode, PegasusError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `pegasus`. Every PegasusError becomes one line on stderr and its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = int(ExitCode.OK)
    try:
        ctrlc.is_raised()
        _fill_standard_streams()
        code = _dispatch(words)
        sys.stdout.flush()
    except PegasusError as error:
        print(f"pegasus: {error}", file=sys.stderr)
        code = int(error.exit_code)
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        code = _of_system(error, code)
    except Exception:  # noqa: BLE001 -- the last line of defence: a bug is said to be one
        import traceback

        traceback.print_exc()
        print("pegasus: this is a bug in Pegasus; nothing that was recorded is lost", file=sys.stderr)
        code = int(ExitCode.INTERNAL)
    if arguments is not None:
        sys.exit(code)
    _leave(code)


def _fill_standard_streams() -> None:
    """A standard stream that is closed (`>&-`) becomes /dev/null, before a file of ours is given its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one. Its use is to stay open.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _leave(code: int) -> NoReturn:
    """End this process. All files are closed, and the interpreter's own clearing up would take 0.1 s."""
    for stream in (sys.stdout, sys.stderr):
        # They may be closed, or nobody reads them any more.
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _of_system(error: OSError, code: int) -> int:
    """What the system refused, and no place nearer to it could explain: mostly what we print is not taken.

    `code` is that of the command, if it had come to its end before.
    """
    # What is still in the buffer must not be met again when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone; there is nobody to tell.
        return code
    print(f"pegasus: {error.filename or 'standard output'}: {error.strerror or error}", file=sys.stderr)
    return int(ExitCode.STORAGE)


def _dispatch(words: list[str]) -> int:
    # typer takes twice as long to read the options of a verb as `pegasus stop` takes for its work.
    if words[:1] == ["stop"]:
        from pegasus_py.cli.quickstop import quick_stop

        if quick_stop(words[1:]):
            return int(ExitCode.OK)
    if len(words) == 1 and words[0] in ("q", "queue", "b", "broadcast"):
        from pegasus_py.cli.quickrun import quick_run

        return int(quick_run(words[0]))
    from pegasus_py.cli.app import app

    try:
        app(args=words, prog_name="pegasus", standalone_mode=True)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return int(ExitCode.OK)

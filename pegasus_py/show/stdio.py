"""The console for this process: what stdout and stderr are, and what the environment wants on them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import BinaryIO, TextIO

from pegasus_py.show.console import Console


def make_console(
    names: Iterable[str],
    *,
    quiet: bool = False,
    out_to_err: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Console:
    """The console for this process's stdout and stderr; `out_to_err` keeps stdout free for something else.

    A terminal gets colours (unless NO_COLOR is set or TERM is `dumb`) and its width (or COLUMNS); anything else gets
    plain, complete lines.
    """
    out, err = _raw(sys.stderr if out_to_err else sys.stdout), _raw(sys.stderr)
    shown = (_is_terminal(out), _is_terminal(err))
    able = environ.get("TERM", "dumb") != "dumb"
    colour = able and not environ.get("NO_COLOR")
    fixed = int(columns) if (columns := environ.get("COLUMNS", "")).isdecimal() and int(columns) else None
    terminal = next((s.fileno() for s, is_one in zip((out, err), shown, strict=True) if s and is_one), None)

    def measure() -> int:
        try:
            return fixed or os.get_terminal_size(terminal or 0).columns or 80
        except OSError:
            return 80

    width = measure() if terminal is not None else None
    return Console(
        out,
        err,
        colour=colour,
        width=width,
        names=tuple(names),
        quiet=quiet,
        terminals=shown,
        live=able and shown[0],
        thread=True,
        measure=measure if terminal is not None and fixed is None else None,
    )


def _raw(stream: TextIO | None) -> BinaryIO | None:
    """The stream without buffers: a closed pipe must not be met again when the interpreter ends."""
    if stream is None:
        return None
    try:
        stream.flush()
        return open(stream.fileno(), "wb", buffering=0, closefd=False)
    except (OSError, ValueError):
        return None


def _is_terminal(stream: BinaryIO | None) -> bool:
    return stream is not None and stream.isatty()

"""Learn that a file may have changed without looking at it again and again: Linux's inotify.

It tells of what is done on this machine, and not of what is written into a mapping: whoever must not miss anything
looks now and then, too.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

_MODIFY, _ATTRIB, _DELETE_SELF, _MOVE_SELF = 0x2, 0x4, 0x400, 0x800
_MOVED_TO, _CREATE = 0x80, 0x100


class FileWatch:
    """From now on, until `close`: `fileno()` becomes readable, and stays so, once the file may have changed.

    Written to, removed, renamed, or another one put in its place; also when another file has come into its directory.
    Raises OSError where the system cannot tell.
    """

    def __init__(self, path: Path) -> None:
        # 6 ms, which only those pay who wait for long.
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        call = getattr(libc, "inotify_init1", None)
        if call is None:
            raise OSError("no inotify")

        def checked(result: int) -> int:
            if result < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
            return result

        def watch(what: Path, events: int) -> None:
            checked(libc.inotify_add_watch(self._fd, os.fsencode(what), ctypes.c_uint32(events)))

        self._fd: int = checked(call(os.O_CLOEXEC | os.O_NONBLOCK))
        try:
            watch(path.parent, _MOVED_TO | _CREATE)
            with contextlib.suppress(FileNotFoundError):
                watch(path, _MODIFY | _ATTRIB | _DELETE_SELF | _MOVE_SELF)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> FileWatch:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

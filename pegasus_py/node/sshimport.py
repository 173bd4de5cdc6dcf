"""asyncssh, imported in two thirds of the time.

It looks for two libraries of C, and Python's way to find one asks the compiler and the linker when it is not there:
30 ms at every start. Where the C library keeps a list of all libraries, that is looked into first. And it does without
what it has for X.509 if that cannot be imported, which takes 16 ms: no OpenSSH knows such certificates.
"""

from __future__ import annotations

import ctypes.util
import os
from pathlib import Path

from pegasus_py.lean import absent

LIST = Path("/etc/ld.so.cache")

_find = ctypes.util.find_library


def find_library(name: str) -> str | None:
    """As in `ctypes.util`, but at once where the library is not in the list; without a list, the usual way.

    So too where somebody names directories of his own.
    """
    try:
        known = "LD_LIBRARY_PATH" in os.environ or f"lib{name}.so".encode() in LIST.read_bytes()
    except OSError:
        known = True
    return _find(name) if known else None


ctypes.util.find_library = find_library
try:
    with absent("cryptography.x509"):
        import asyncssh as asyncssh
finally:
    ctypes.util.find_library = _find

"""asyncssh, imported in little more than half of the time.

It looks for two libraries of C, and Python's way to find one asks the compiler and the linker when it is not there:
30 ms at every start. Where the C library keeps a list of all libraries, that is looked into first. And what it has for
X.509 takes 16 ms to import and then finds out that it is of no use without pyOpenSSL.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
from contextlib import nullcontext
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
    with nullcontext() if importlib.util.find_spec("OpenSSL") else absent("asyncssh.crypto.x509"):
        import asyncssh as asyncssh
finally:
    ctypes.util.find_library = _find


def _no_x509(data: bytes) -> None:
    raise asyncssh.KeyImportError("X.509 certificates are not supported")


# asyncssh calls it all the same when there is such a certificate behind a key.
vars(asyncssh.public_key).setdefault("import_x509_certificate", _no_x509)

"""asyncssh, imported in less than half of the time.

It looks for libraries of C, and Python's way to find one asks ldconfig when it is there, the compiler and the linker
when it is not: 30 ms at every start. Where the C library keeps a list of all libraries, that is looked into instead.
What it has for X.509 takes 16 ms to import and is of no use without pyOpenSSL. And we copy no files.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import re
from contextlib import nullcontext
from pathlib import Path

from pegasus_py.lean import absent, hollow

LIST = Path("/etc/ld.so.cache")

_find = ctypes.util.find_library


def find_library(name: str) -> str | None:
    """As in `ctypes.util`, but from the list alone; without a list, the usual way.

    So too where somebody names directories of his own.
    """
    try:
        known = None if "LD_LIBRARY_PATH" in os.environ else LIST.read_bytes()
    except OSError:
        known = None
    if known is None:
        return _find(name)
    found = re.findall(rb"[\0/](lib%b\.so(?:\.[^\0/]+)?)(?=\0)" % re.escape(name.encode()), known)
    # What is for the linker has no version; what is to be loaded has one.
    return max(found, key=len).decode() if found else None


ctypes.util.find_library = find_library
try:
    with (
        nullcontext() if importlib.util.find_spec("OpenSSL") else absent("asyncssh.crypto.x509"),
        hollow("asyncssh.scp", "asyncssh.sftp"),
    ):
        import asyncssh as asyncssh
finally:
    ctypes.util.find_library = _find


def _no_x509(data: bytes) -> None:
    raise asyncssh.KeyImportError("X.509 certificates are not supported")


# asyncssh calls it all the same when there is such a certificate behind a key.
vars(asyncssh.public_key).setdefault("import_x509_certificate", _no_x509)

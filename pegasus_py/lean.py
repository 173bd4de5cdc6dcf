"""Libraries imported without what they can do without: less time at each start, and less memory."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HASHES = (
    "_md5",
    "_sha1",
    *(["_sha2"] if sys.version_info >= (3, 12) else ["_sha256", "_sha512"]),
    "_sha3",
    "_blake2",
)
"""The interpreter's own modules for hashes. Whoever built it may have left some out, and hashlib complains of each."""


@contextmanager
def absent(name: str) -> Iterator[None]:
    """As if module `name` were not installed, for those that are imported in between; afterwards it is there again.

    For modules that a library imports in a `try`, which take time and of which we use nothing.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def without_openssl() -> None:
    """Import what of the standard library would load OpenSSL's libraries, without them: 8 ms and 4 MB.

    asyncio has them for TLS, which is not for us. hashlib takes their functions if it can, and else the interpreter's
    own. The encryption of SSH is done by others, which bring a library of their own.
    """
    with absent("ssl"):
        import asyncio as asyncio
    if all(importlib.util.find_spec(name) for name in HASHES):
        with absent("_hashlib"):
            import hashlib as hashlib
            import hmac as hmac

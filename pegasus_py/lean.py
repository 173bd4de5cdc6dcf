"""Libraries imported without what they can do without: less time at each start, and less memory."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

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


class _Hollow(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextmanager
def hollow(*names: str) -> Iterator[None]:
    """As if these modules had whatever is imported from them, and that were classes of nothing.

    For modules of which a library always imports some names, and which it uses only in what is none of ours. Afterwards
    who imports them gets them.
    """
    made = [name for name in names if name not in sys.modules]
    sys.modules.update({name: _Hollow(name) for name in made})
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


class _Later:
    """A pattern that is compiled when it is first used."""

    def __init__(self, compile_it: Callable[[], Any]) -> None:
        self._compile = compile_it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compile(), name)


@contextmanager
def wide_patterns_later() -> Iterator[None]:
    """Patterns with sets that reach to the end of Unicode, made in between, are compiled when they are first used."""
    compile_now = re.compile

    def compile_later(pattern: Any, flags: Any = 0) -> Any:
        wide = isinstance(pattern, str) and "\U0010ffff" in pattern
        return _Later(lambda: compile_now(pattern, flags)) if wide else compile_now(pattern, flags)

    re.compile = compile_later
    try:
        yield
    finally:
        re.compile = compile_now


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

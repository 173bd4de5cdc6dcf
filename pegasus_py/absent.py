"""Imports of libraries without what they can do without."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


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

"""Fixtures of the tests of what is on the controller's disk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pegasus_py.store import ledger_db


@pytest.fixture(scope="module", params=[True, False], ids=["wal", "rollback"])
def local(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether the ledger takes its disk for this machine's own: it has two kinds of journal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_db, "is_local", lambda directory: request.param)
        yield request.param


@pytest.fixture
def as_here(local: bool) -> str:
    """Code that has another process take it for the same."""
    return f"import pegasus_py.store.ledger_db\npegasus_py.store.ledger_db.is_local = lambda directory: {local}\n"

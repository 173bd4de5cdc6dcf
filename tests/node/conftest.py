"""Fixtures of the node side's tests: each runs with every shell that there is, and with Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.nodes import WAYS, Place


@pytest.fixture(params=WAYS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path / "spool")

"""`pegasus demo`: what the Quick start shows."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from tests.e2e.program import pegasus


def test_the_demo_runs_over_ssh_and_shows_what_ran_where(
    home: Path, workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    assert tempfile.gettempdir()

    run = pegasus("demo")

    assert run.code == 0, run
    table = run.out.partition("What ran where:")[2]
    rows = re.findall(r"^(\d+) +(demo-[123]\S*) +succeeded +(\S.*)$", table, re.MULTILINE)
    assert [int(row[0]) for row in rows] == list(range(1, 11)), run
    assert {row[1] for row in rows} == {"demo-1/0", "demo-1/1", "demo-2/0", "demo-2/1", "demo-3"}, run
    for _, subnode, shown in rows:
        if " on demo-" in shown:
            assert f"on {subnode.partition('/')[0]}" in shown
    assert list((tmp_path / "tmp").iterdir()) == [], "the demo leaves nothing behind"
    assert list(workdir.iterdir()) == [] and list(home.iterdir()) == []

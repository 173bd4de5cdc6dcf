"""Who sends output waits for a slow reader, and not for one who does not read."""

from __future__ import annotations

from typing import Any

from pegasus_py.run.screen import PATIENCE, Screen


class FakeConsole:
    backlog = 10_000_000
    written = 0


def test_a_reader_who_sleeps_holds_nobody_up(monkeypatch: Any) -> None:
    now = 0.0
    monkeypatch.setattr("pegasus_py.run.screen.make_console", lambda names, out_to_err: FakeConsole())
    screen = Screen([], json=False, clock=lambda: now)
    assert screen.backlog() == 10_000_000
    now += PATIENCE - 1
    screen.console.written += 1  # type: ignore[misc]
    assert screen.backlog() == 10_000_000
    now += PATIENCE - 1
    assert screen.backlog() == 10_000_000
    now += 1
    assert screen.backlog() == 0
    screen.console.written += 1  # type: ignore[misc]
    assert screen.backlog() == 10_000_000

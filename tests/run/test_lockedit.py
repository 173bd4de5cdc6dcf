"""The queue's lock is held for as long as the editor is open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = "from pegasus_py.cli.main import main; main()"


@pytest.mark.parametrize("name", ["INT", "QUIT", "TERM", "HUP"])
def test_a_signal_does_not_take_the_lock_away_under_the_editor(workdir: Path, name: str) -> None:
    (workdir / "queue.yaml").write_text("- true\n")
    editor = workdir / "editor"
    # Then it asks for the lock itself: nobody may get it while the editor is there.
    take = "from pegasus_py.store.queuefile import QueueFile\nwith QueueFile('queue.yaml').hold(): pass"
    editor.write_text(
        f"#!/bin/sh\nkill -{name} $PPID\n{sys.executable} -c \"{take}\" 2>refused && exit 9\necho '- false' >>$1\n"
    )
    editor.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", MAIN, "lock", "--editor", str(editor)]
    done = subprocess.run(command, env=environment, timeout=20, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (workdir / "queue.yaml").read_text() == "- true\n- false\n"
    assert "pegasus lock" in (workdir / "refused").read_text()

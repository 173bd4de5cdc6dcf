"""`pegasus q` and `pegasus b` alone do what typer makes of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pegasus_py.cli import quickrun
from pegasus_py.cli.app import app
from pegasus_py.errors import ExitCode
from pegasus_py.run import life


@pytest.mark.parametrize("verb", ["q", "queue", "b", "broadcast"])
def test_a_verb_alone_means_the_same_either_way(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[life.Request] = []

    def live(request: life.Request) -> ExitCode:
        asked.append(request)
        return ExitCode.NO_NODES

    monkeypatch.setattr(life, "live", live)
    assert quickrun.quick_run(verb) == ExitCode.NO_NODES
    assert app(args=[verb], standalone_mode=False) == ExitCode.NO_NODES
    assert asked[0] == asked[1]


def test_a_verb_alone_starts_without_reading_options(workdir: Path) -> None:
    """Which would import as much again as all the rest."""
    (workdir / "hosts.yaml").write_text("- localhost\n")
    (workdir / "queue.yaml").write_text("- echo hello\n")
    code = "import sys; from pegasus_py.cli import main; main.main(['q'])"
    spy = (
        f"import atexit, sys; atexit.register(lambda: print('typer' in sys.modules, file=sys.stderr)); {code}"
    )
    done = subprocess.run([sys.executable, "-c", spy], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[localhost] hello\n")
    assert done.stderr.splitlines()[-1] == "False"

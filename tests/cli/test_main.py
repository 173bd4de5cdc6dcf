"""What becomes of the program when its own output is not taken."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PEGASUS = [sys.executable, "-m", "pegasus_py"]


@pytest.mark.parametrize("words", [["status"], ["--help"], ["--version"]])
def test_a_full_disk_behind_stdout_is_one_line(words: list[str], workdir: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*PEGASUS, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (5, "pegasus: standard output: No space left on device\n")


def test_a_full_disk_behind_a_log_is_not_blamed_on_the_log(workdir: Path) -> None:
    (workdir / "queue.yaml").write_text("- echo one\n")
    (workdir / "log").write_text("one\n")
    text = (
        "from pathlib import Path\nfrom pegasus_py.cli import main\nfrom pegasus_py.run import status\n"
        f"main.main_ = lambda words: status._copy(Path({str(workdir / 'log')!r}), 0)\n"
        "main._dispatch = lambda words: main.main_(words) and 0\nmain.main(['logs'])\n"
    )
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", text], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (5, "pegasus: standard output: No space left on device\n")


def test_a_reader_that_has_gone_is_no_error(workdir: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(PEGASUS)} --help | true; echo ${{PIPESTATUS:-ok}}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_wrong_words_are_two(workdir: Path) -> None:
    done = subprocess.run([*PEGASUS, "frobnicate"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "frobnicate" in done.stderr


@pytest.mark.parametrize("words", ["--version", "--help", "q --help", "stop", "status", "logs 1", "q"])
@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_as_one_that_nobody_reads(words: str, closed: str, workdir: Path) -> None:
    def run(how: str) -> subprocess.CompletedProcess[str]:
        line = f"exec {' '.join(PEGASUS)} {words} {how}"
        return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)

    done = run(closed)
    assert done.returncode == run("</dev/null >/dev/null 2>/dev/null").returncode
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_before_the_command_has_begun_is_no_traceback(ignored: bool) -> None:
    """While the rest is imported; and who is started with it ignored goes on ignoring it."""
    text = (
        "import os, signal, sys\n"
        f"signal.signal(signal.SIGINT, signal.SIG_IGN if {ignored} else signal.default_int_handler)\n"
        "from pegasus_py.cli import ctrlc\n"
        "ctrlc.ends_at_once()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "from pegasus_py.__main__ import main\n"
        "main(['--version'])\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == ((0, "") if ignored else (-signal.SIGINT, ""))

"""What becomes of the program when its own output is not taken."""

from __future__ import annotations

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

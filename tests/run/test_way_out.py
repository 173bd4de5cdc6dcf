"""The whole program ends, whoever does not read, answer or let go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.procs import wait_until

MAIN = "from pegasus_py.cli.main import main; main()"


def _start(workdir: Path, queue: str, *arguments: str, stdout: int) -> subprocess.Popen[bytes]:
    (workdir / "hosts.yaml").write_text("- localhost\n")
    (workdir / "queue.yaml").write_text(queue)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", MAIN, "q", *arguments]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL, env=environment)


def test_a_reader_who_sleeps_at_the_end_keeps_neither_the_queue_nor_the_user(
    home: Path, workdir: Path
) -> None:
    with _start(workdir, "- head -c 300000 /dev/zero | tr '\\0' '\\n'\n", stdout=subprocess.PIPE) as process:
        claim = workdir / ".pegasus" / "queue.yaml" / "controller.json"
        consumed = workdir / "consumed.yaml"
        wait_until(lambda: consumed.exists() and not claim.exists(), "the run to let go of the queue", 20)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT


def test_a_summary_for_a_program_that_has_gone_keeps_the_exit_code(home: Path, workdir: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with _start(workdir, "- exit 3\n", "--json", stdout=writing) as process:
        os.close(writing)
        assert process.wait(20) == 1


def test_the_summary_as_json_comes_whole(home: Path, workdir: Path) -> None:
    with _start(workdir, "- exit 3\n", "--json", stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(timeout=20)
    assert json.loads(out)["exit_code"] == process.returncode == 1

"""The whole program ends, whoever does not read, answer or let go."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import procs
from tests.support.procs import wait_until

MAIN = "from pegasus_py.cli.main import main; main()"


def _start(
    workdir: Path, queue: str, *arguments: str, stdout: int, host: str = "localhost"
) -> subprocess.Popen[bytes]:
    (workdir / "hosts.yaml").write_text(f"- {host}\n")
    (workdir / "queue.yaml").write_text(queue)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    # With a buffer, as for everybody: what is in it must not change how the program ends.
    environment.pop("PYTHONUNBUFFERED", None)
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


@pytest.fixture
def silent_host(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a host that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = home / "config"
        config.write_text(f"Host silent\n  HostName 127.0.0.1\n  Port {server.getsockname()[1]}\n")
        monkeypatch.setenv("PEGASUS_SSH_CONFIG", str(config))
        yield "silent"


@pytest.mark.parametrize("times", [1, 2, 3])
def test_ctrl_c_while_a_node_does_not_answer(silent_host: str, workdir: Path, times: int) -> None:
    with _start(workdir, "- true\n", stdout=subprocess.DEVNULL, host=silent_host) as process:
        claim = workdir / ".pegasus" / "queue.yaml" / "controller.json"
        wait_until(claim.exists, "the run to begin", 20)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
        assert process.wait(9) in (6, 130, -signal.SIGTERM)
    assert (workdir / "queue.yaml").read_text() == "- true\n"


def test_a_command_in_the_ssh_configuration_that_hangs(
    home: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "config").write_text('Match exec "sleep 40"\n  Port 1\n')
    monkeypatch.setenv("PEGASUS_SSH_CONFIG", str(home / "config"))
    with _start(workdir, "- true\n", stdout=subprocess.DEVNULL, host="anywhere") as process:
        wait_until(lambda: _sleeps(process.pid), "the command to run", 20)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
    # That command was the user's own, and is left to him.
    procs.kill(procs.carriers(f"PEGASUS_TEST_MARK={os.environ['PEGASUS_TEST_MARK']}"))
    assert (workdir / "queue.yaml").read_text() == "- true\n"


def _sleeps(pid: int) -> bool:
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return any(each.read_text().strip() for each in children)

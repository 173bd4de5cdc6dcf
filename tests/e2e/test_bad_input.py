"""One line with file, line and column, and what to do; nothing lost, nothing hung."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.program import Gate, pegasus, running, write
from tests.support.procs import wait_until

BOMB = "- command: echo {{ a }}\n  a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"  {to}: &{to} [{', '.join([f'*{of}'] * 10)}]\n" for of, to in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("queue", "place", "told"),
    [
        (b"- echo ok\n- [\n", "queue.yaml:3:1: ", "not YAML"),
        (b"- command: a\n  command: b\n", "queue.yaml:2:3: ", "a second time, first in line 1"),
        (b"- echo ok\n- x: 1\n", "queue.yaml:2:3: ", "an entry without `command`; add it"),
        (b"- command: {a: b}\n", "queue.yaml:1:12: ", "`command` takes a text or a list of texts"),
        (b"- command: echo\n  x: {a: b}\n", "queue.yaml:2:6: ", "`x` takes a text or a list of texts"),
        (b"command: echo\n", "queue.yaml:1:1: ", 'begin each entry with "- "'),
        (b"- [a]\n", "queue.yaml:1:3: ", "not a list"),
        (b"- echo ok\n- echo {{ nope }}\n", "queue.yaml:2:3: ", "'nope' is not defined on node-1; known there: gpu"),
        (b"- command: echo {{ gpu }}\n  gpu: 3\n", "queue.yaml:1:3: ", "'gpu' is defined by this entry and"),
        (b"- echo {{ gpu\n", "queue.yaml:1:3: ", "template: "),
        (b"- command: echo\n  options: {tmeout: 3}\n", "queue.yaml:2:13: ", "unknown option 'tmeout'; the"),
        (b"- command: echo\n  timeout: 3\n", "queue.yaml:1:3: ", "'timeout' stands beside `command` and no command"),
        (b"- command: echo\n  slots: 2\n", "queue.yaml:2:3: ", "not supported yet"),
        (b"- command: echo\n  x: []\n", "queue.yaml:2:6: ", "an empty list"),
        (b"- echo ok\n- echo \xff\n", "queue.yaml:2:8: ", "byte 0xff is not UTF-8; save the file as UTF-8"),
        (BOMB.encode(), "queue.yaml:", "the aliases stand for too much text"),
        (b"[" * 900, "queue.yaml:1:51: ", "nested more than 50 deep; write it flatter"),
        (b"[" * 100_000, "queue.yaml:1:", "nested more than 50 deep; write it flatter"),
        (b"- command: " + b"[" * 100_000, "queue.yaml:1:", "nested more than 50 deep"),
        (b"- !!python/object/apply:os.system [x]\n", "queue.yaml:1:3: ", "is not supported"),
    ],
)  # fmt: skip
def test_a_bad_queue_is_told_in_one_line_before_anything_runs(
    here: Path, queue: bytes, place: str, told: str
) -> None:
    write(here, "- hostname: node-1\n  gpu: 0\n", None)
    (here / "queue.yaml").write_bytes(queue)
    run = pegasus("q")
    assert run.code == 2 and run.err.startswith(f"pegasus: {place}") and told in run.err, run
    assert run.err.count("\n") == 1 and len(run.err) < 400 and run.out == ""
    assert (here / "queue.yaml").read_bytes() == queue and not (here / "consumed.yaml").exists()


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        ("", "hosts.yaml: no hosts; write one a line"),
        ("- gpu: 1\n", "hosts.yaml:1:3: a host without `hostname`; add it"),
        ("- node 1\n", "hosts.yaml:1:3: 'node 1' cannot be a hostname"),
        ("- hostname: node-{{ m }}\n  n: 1\n", "hosts.yaml:1:13: 'm' is undefined; defined here: n"),
        ("- node-1\n- [\n", "hosts.yaml:3:1: not YAML"),
    ],
)
def test_a_bad_hosts_file(here: Path, hosts: str, told: str) -> None:
    write(here, hosts, "- echo one\n")
    run = pegasus("q")
    assert run.code == 2 and run.err.startswith(f"pegasus: {told}") and run.err.count("\n") == 1, run


def test_missing_files_are_named_with_the_option(here: Path) -> None:
    run = pegasus("q")
    assert run.code == 2 and "hosts.yaml: no such file" in run.err and "--hosts-file" in run.err, run
    write(here, "- node-1\n", None)
    run = pegasus("b")
    assert run.code == 2 and "queue.yaml: no such file" in run.err and "-Q" in run.err, run
    assert [path.name for path in here.iterdir()] == ["hosts.yaml"], "nothing is made"


@pytest.mark.parametrize("queue", ["", "# only a comment\n", "[]\n"])
def test_an_empty_queue_is_no_error(here: Path, queue: str) -> None:
    write(here, "- node-1\n", queue)
    run = pegasus("q")
    assert run.code == 0 and "0 succeeded, 0 failed" in run.err, run
    assert (here / "queue.yaml").read_text() == queue


def save(path: Path, text: str) -> None:
    """At once: a file that is cut and then written is empty in between, and an empty queue ends a run."""
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)


def test_a_queue_turned_bad_while_running_is_waited_for(here: Path) -> None:
    gate = Gate(here, "gate")
    queue = here / "queue.yaml"
    write(here, "- node-1\n- node-2\n", f"- {gate.command}\n")
    with running(here, "q") as run:
        gate.wait()
        save(queue, "- [\n")
        run.until_said("pegasus: queue.yaml:2:1: not YAML")
        save(queue, "- [ # and again\n")
        save(queue, "- [\n")
        gate.open()
        run.until_said("1 $ ")
        wait_until(lambda: '"succeeded": 1' in pegasus("status", "--json").out, "the first job to end")
        assert run.process.poll() is None
        save(queue, "- echo mended\n")
        result = run.result()
    assert result.code == 0 and result.said == ["mended"], result
    assert result.err.count("queue.yaml:2:1: not YAML") == 1, "it is said once"
    assert "the queue file can be read again" in result.err


def test_an_entry_that_does_not_render_stays_where_it_is_and_nothing_after_it_runs(here: Path) -> None:
    gate = Gate(here, "gate")
    write(here, "- node-1\n", f"- {gate.command}\n")
    with running(here, "q") as run:
        gate.wait()
        with (here / "queue.yaml").open("a") as queue:
            queue.write("- echo {{ nope }}\n- echo after\n")
        gate.open()
        run.until_said("queue.yaml:2:3: ")
        assert pegasus("stop", "--wait").code == 0
        result = run.result()
    assert result.code == 2 and result.out == "", result
    assert (here / "queue.yaml").read_text() == "- echo {{ nope }}\n- echo after\n"


# --- file systems that refuse --------------------------------------------------------------------------------------


@pytest.fixture
def own_mounts() -> list[str]:
    """A prefix that runs a command where it may mount without anybody noticing."""
    prefix = (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    )
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are not allowed here")
    return prefix


@pytest.mark.parametrize("verb", [["q"], ["b"], ["lock", "--editor", "true"]])
def test_a_read_only_directory(here: Path, own_mounts: list[str], verb: list[str]) -> None:
    write(here, "- node-1\n", "- echo one\n")
    mount = f'mount --bind {here} {here} && mount -o remount,ro,bind {here} && cd {here} && exec "$@"'
    run = pegasus(*verb, prefix=[*own_mounts, "sh", "-c", mount, "sh"])
    assert run.code == 5 and "Read-only file system" in run.err and run.err.count("\n") == 1, run
    assert "writable" in run.err, "what to do"
    assert sorted(path.name for path in here.iterdir()) == ["hosts.yaml", "queue.yaml"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[str]:
    yield f"mkdir -p {tmp_path}/disk && mount -t tmpfs -o size=4m tmpfs {tmp_path}/disk && cd {tmp_path}/disk"


def test_a_full_disk_starts_nothing_and_loses_nothing(
    here: Path, own_mounts: list[str], small_disk: str
) -> None:
    write(here, "- node-1\n", "- echo one\n- echo two\n")
    script = (
        f"{small_disk} && cp {here}/*.yaml . && head -c 4m /dev/zero > fill 2> /dev/null; "
        f'"$@" q; echo "exit $?" >&2; cat queue.yaml >&2; ls >&2; rm fill; "$@" q'
    )
    run = pegasus(prefix=[*own_mounts, "sh", "-c", script, "sh"])
    assert "exit 5\n- echo one\n- echo two\nfill" in run.err and "free some space" in run.err, run
    assert run.code == 0 and run.said == ["one", "two"], "and it runs once there is room"


def test_while_logs_cannot_be_written_nothing_new_starts(
    here: Path, own_mounts: list[str], small_disk: str
) -> None:
    gate = Gate(here, "gate")
    write(here, "- node-1\n", f"- {gate.command}; head -c 500000 /dev/zero | tr '\\0' x\n- echo second\n")
    script = (
        f'{small_disk} && cp {here}/*.yaml . && {{ "$@" q 2> {here}/err & }}; '
        f"{until(f'[ -e {gate.begun} ]')}; head -c 4m /dev/zero > fill 2> /dev/null; touch {gate.open_}; "
        f"{until(f'grep -q nothing.new.starts {here}/err')}; cat queue.yaml >&2; rm fill; wait $! && "
        "wc -c <.pegasus/queue.yaml/logs/1.1.log >&2"
    )
    run = pegasus(prefix=[*own_mounts, "sh", "-c", script, "sh"])
    assert "- echo second\n" in run.err, "it had not started"
    assert run.code == 0 and "second" in run.said, (here / "err").read_text()
    assert "the output of job 1 is in its log now" in (here / "err").read_text()
    assert run.err.endswith("\n500000\n"), "the output of the first is not whole in the end"


def until(condition: str) -> str:
    """A shell's wait, with a bound."""
    return f"i=0; until {condition} || [ $i -gt 400 ]; do i=$((i + 1)); sleep 0.05; done"

"""What a command gets, and what becomes of what it prints: in a pipe, on a terminal, in its log."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e.program import Gate, command, environment, pegasus, running, terminal, write
from tests.support.procs import alive, kill


def queue(*commands: str) -> str:
    """A queue of commands, quoted as YAML needs it."""
    return yaml.safe_dump(list(commands), width=10**9)


# --- what runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("echo 'a  b' | awk '{print $2}'", ["b"]),
        ('x="it\'s"; echo "$x" $((1 + 2)) \\$x `echo y`', ["it's 3 $x y"]),
        ("echo one\necho two\n", ["one", "two"]),
        ("echo '{{ '{{' }}.Names}}'", ["{{.Names}}"]),
        ("x=abc; echo ${#x} ${x%c}", ["3 ab"]),
        ("cat <<'end'\n  $HOME \\ \"\nend\n", ['  $HOME \\ "']),
    ],
)
def test_sh_runs_the_text_exactly_as_written(here: Path, text: str, printed: list[str]) -> None:
    write(here, "- node-1\n", queue(text))
    run = pegasus("q")
    assert run.code == 0 and [line.partition("] ")[2] for line in run.out.splitlines()] == printed, run


def test_a_script_of_a_megabyte(here: Path) -> None:
    write(here, "- node-1\n", queue(f"x='{'y' * 1_000_000}'\nprintf %s \"$x\" | wc -c\n"))
    run = pegasus("q")
    assert run.code == 0 and run.said == ["1000000"], run


def test_stdin_is_empty_and_the_environment_tells_who_it_is(here: Path) -> None:
    names = "$PEGASUS_JOB_ID $PEGASUS_HOSTNAME $PEGASUS_SUBNODE"
    write(
        here,
        "- hostname: node-1\n  gpu: [0, 1]\n",
        queue(f"cat; echo {names}; echo $PEGASUS_ATTEMPT", "true"),
    )
    run = pegasus("q")
    assert run.code == 0, run
    who, attempt = (line.partition("] ")[2] for line in run.out.splitlines())
    assert re.fullmatch(r"1 node-1 node-1/[01]", who) and re.fullmatch(r"1\.1\.[0-9a-f]{16}", attempt), run


def test_a_child_in_the_background_does_not_keep_the_job_open(here: Path) -> None:
    pid = here / "pid"
    write(here, "- node-1\n", queue(f"sleep 300 & echo $! > {pid}; echo started; exit 3", "echo next"))
    run = pegasus("q")
    child = int(pid.read_text())
    try:
        assert run.code == 1 and "job 1 failed: exit 3" in run.err and run.said == ["next", "started"], run
        assert alive(child), "it was left alone"
    finally:
        kill([child])


# --- in a pipe ---------------------------------------------------------------------------------------------------


def test_a_pipe_gets_plain_complete_lines_with_the_name_in_front(here: Path) -> None:
    long = "x" * 5000
    write(
        here,
        "- node-1\n",
        queue(f"echo {long}; printf '\\033[31mred\\033[0m \\033]0;t\\007\\033[2Jz\\n'; echo err >&2"),
    )
    run = pegasus("q")
    assert run.out == f"[node-1] {long}\n[node-1] red z\n[node-1] err\n", run
    assert "\x1b" not in run.err


def test_any_bytes_progress_bars_and_a_last_line_without_an_end(here: Path) -> None:
    write(
        here,
        "- node-1\n",
        queue("printf 'a\\377b\\n'; printf '10%%\\r50%%\\r100%%\\n'; echo '[/nope]'; printf 'the end'"),
    )
    run = pegasus("q")
    assert run.out == "[node-1] a�b\n[node-1] 100%\n[node-1] [/nope]\n[node-1] the end\n", run
    assert (
        here / ".pegasus/queue.yaml/logs/1.1.log"
    ).read_bytes() == b"a\xffb\n10%\r50%\r100%\n[/nope]\nthe end"


def test_output_comes_line_by_line_while_the_job_runs(here: Path) -> None:
    gate = Gate(here, "gate")
    write(here, "- node-1\n", queue(f"echo early; {gate.command}; echo late"))
    with running(here, "q") as run:
        run.until_said("[node-1] early\n")
        assert "late" not in run.out
        gate.open()
        assert run.result().code == 0


def test_no_job_spoils_another_ones_line(here: Path) -> None:
    """Halves of lines, in turns."""
    turns = (
        "for i in 1 2 3; do n=0; "
        "until [ -e {me}$i ] || [ $n -gt 400 ]; do n=$((n + 1)); sleep 0.02; done; "
        "printf {me}$i; sleep 0.3; touch {next}; done; echo"
    )
    first = turns.format(me="a", next="b$i")
    second = turns.format(me="b", next="a$((i + 1))")
    (here / "a1").touch()
    write(here, "- node-1\n- node-2\n", queue(f"cd {here}; {first}", f"cd {here}; {second}"))
    run = pegasus("q")
    assert run.code == 0 and run.said == ["a1a2a3", "b1b2b3"], run


def test_a_huge_line_takes_little_memory(here: Path) -> None:
    size = 250_000_000
    write(here, "- node-1\n", queue(f"head -c {size} /dev/zero | tr '\\0' z; echo; echo end"))
    # By the process itself: what the system counts for it begins with the size of whoever started it.
    peak = (
        "import atexit, pathlib, sys; from pegasus_py.cli.main import main; "
        "keep = lambda: pathlib.Path('peak').write_text(pathlib.Path('/proc/self/status').read_text()); "
        "atexit.register(keep); main(['q'])"
    )
    with Path("out").open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-c", peak],
            stdout=out,
            stderr=subprocess.DEVNULL,
            env=environment(),
            check=False,
        )
    assert done.returncode == 0
    (line,) = [line for line in Path("peak").read_text().splitlines() if line.startswith("VmHWM:")]
    megabytes = int(line.split()[1]) / 1000
    assert megabytes < 180, f"{megabytes:.0f} MB for a line of {size / 1e6:.0f} MB"
    assert Path("out").stat().st_size >= size and Path("out").read_bytes()[-13:] == b"[node-1] end\n"
    assert (here / ".pegasus/queue.yaml/logs/1.1.log").stat().st_size == size + 5
    Path("out").unlink()
    (here / ".pegasus/queue.yaml/logs/1.1.log").unlink()


def test_a_closed_stdout_ends_the_output_quietly_and_the_run_goes_on(here: Path) -> None:
    write(here, "- node-1\n", queue(*[f"seq 1 20000; touch {here}/done.{n}" for n in range(4)]))
    with subprocess.Popen(
        [*command(), "q"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as run:
        assert run.stdout is not None and run.stderr is not None
        assert run.stdout.readline() == b"[node-1] 1\n"
        run.stdout.close()
        err = run.stderr.read().decode()
        assert run.wait(60) == 0, err
    assert "Traceback" not in err and "roken pipe" not in err and "4 succeeded" in err
    assert len(list(here.glob("done.*"))) == 4


def test_json_leaves_stdout_to_the_summary(here: Path) -> None:
    write(here, "- node-1\n", queue("echo shown", "exit 3"))
    run = pegasus("q", "--json")
    summary = json.loads(run.out)
    assert summary["counts"] == {"succeeded": 1, "failed": 1, "timed-out": 0, "cancelled": 0, "lost": 0}
    assert summary["exit_code"] == run.code == 1 and summary["failures"][0]["status"] == 3
    assert "[node-1] shown\n" in run.err


# --- on a terminal -----------------------------------------------------------------------------------------------


def test_a_terminal_gets_coloured_names_and_lines_wrapped_beside_them(here: Path) -> None:
    write(
        here,
        "- node-1\n- node-2\n",
        queue(f"echo {'x' * 150}; printf '\\033[31mred\\033[2J \\033]0;t\\007z\\n'"),
    )
    with terminal("q") as run:
        assert run.end() == 0, run.text
    shown = re.compile(r"\x1b\[[0-9;]*m")
    rows = [line for line in run.text.split("\r\n") if "x" in shown.sub("", line).partition("] ")[2][:1]]
    assert [len(shown.sub("", row)) for row in rows] == [80, 80, 9 + 150 - 2 * 71], run.text
    assert all(re.match(r"\x1b\[\d+m\[node-[12]\]\x1b\[0m ", row) for row in rows), run.text
    assert "\x1b[31mred z" in run.text.replace("\x1b[0m", ""), run.text
    assert re.sub(r"\x1b\[[0-9;]*[mK]", "", run.text).count("\x1b") == 0, "no escapes but colours"


def test_no_color(here: Path) -> None:
    write(here, "- node-1\n", queue("printf '\\033[31mred\\n'", "exit 3"))
    with terminal("q", env={"NO_COLOR": "1"}) as run:
        assert run.end() == 1
    assert "[node-1] red" in run.text and not re.search(r"\x1b\[[0-9;]*m", run.text), run.text


def test_a_progress_bar_moves_on_a_terminal_and_stays_out_of_others_lines(here: Path) -> None:
    gate = Gate(here, "gate")
    write(here, "- node-1\n", queue(f"printf '50%%\\r'; printf '75%%'; {gate.command}; printf '\\r100%%\\n'"))
    with terminal("q") as run:
        run.until_said("75%")
        gate.open()
        assert run.end() == 0
    assert re.search(r"node-1\]\S* 100%\r\n", run.text), run.text


# --- afterwards --------------------------------------------------------------------------------------------------


def test_one_log_per_job_that_pegasus_logs_prints(here: Path) -> None:
    write(here, "- node-1\n- node-2\n", queue("echo first; echo err >&2", "printf 'raw \\377\\r.'"))
    assert pegasus("q").code == 0
    logs = here / ".pegasus/queue.yaml/logs"
    assert {path.name: path.read_bytes() for path in logs.iterdir()} == {
        "1.1.log": b"first\nerr\n",
        "2.1.log": b"raw \xff\r.",
    }
    assert pegasus("logs", "1").out == "first\nerr\n"
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in logs.iterdir())


# --- a disk that loses what it has taken -------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace to let system calls fail")
@pytest.mark.parametrize(("call", "error"), [("fsync", "EIO"), ("close", "EDQUOT")])
def test_output_that_is_lost_after_it_was_written_is_fetched_again(
    here: Path, tmp_path: Path, call: str, error: str
) -> None:
    """NFS or a quota may say so only with the flush or the close, and only once."""
    write(here, "- node-1\n", queue("echo hello", "true"))
    log = here / ".pegasus" / "queue.yaml" / "logs" / "1.1.log"
    trace = ["strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-P", str(log), "-e", f"trace={call}"]
    run = pegasus("q", prefix=[*trace, "-e", f"inject={call}:error={error}"])
    assert "(INJECTED)" in (tmp_path / "trace").read_text()
    assert run.code == 5 and "2 succeeded" in run.err, run
    assert "the output of job 1 stays on its node" in run.err, run
    # What it holds is not believed: a lost write may leave it like this.
    log.write_bytes(bytes(6))
    run = pegasus("q")
    assert run.code == 0, run
    assert log.read_bytes() == b"hello\n"
    assert {path.name for path in log.parent.iterdir()} == {"1.1.log"}

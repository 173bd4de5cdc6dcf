"""The summary at the end, and the exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pegasus_py.errors import ExitCode
from tests.e2e.program import TREE, Gate, pegasus, running, terminal, write
from tests.support.procs import wait_until


def test_the_summary_names_host_command_exit_status_or_signal_and_log(here: Path) -> None:
    queue = "- echo fine\n- echo output; exit 3\n- kill -SEGV $$\n- 'exit 255'\n"
    write(here, "- node-1\n", queue)

    run = pegasus("q")

    assert run.code == 1, run
    table = run.err[run.err.index("job  ended") :].splitlines()
    log = ".pegasus/queue.yaml/logs/2.1.log"
    assert re.fullmatch(rf"2 +exit 3 +node-1 +echo output; exit 3 +{re.escape(log)}", table[1]), table
    assert re.fullmatch(r"3 +exit 139 SIGSEGV +node-1 +kill -SEGV \$\$ *", table[2]), table
    assert re.fullmatch(r"4 +exit 255 +node-1 +exit 255 *", table[3]), table
    assert table[4] == "1 succeeded, 3 failed"
    assert (here / log).read_text() == "output\n"


def test_it_fits_eighty_columns(here: Path) -> None:
    write(
        here,
        "- hostname: node-1\n  a_rather_long_parameter: [with-a-rather-long-value, and-another]\n",
        f"- echo {'very ' * 40}long; exit 3\n- 'false'\n",
    )
    with terminal("q") as run:
        assert run.end() == 1
    plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", run.text)
    table = plain[plain.index("job  ended") :]
    assert max(map(len, table.replace("\r", "").splitlines())) <= 80, table
    assert "logs are in .pegasus/queue.yaml/logs/" in table and "1.1.log" in table


def test_what_was_not_started_is_counted(here: Path) -> None:
    gate = Gate(here, "gate")
    write(
        here, "- node-1\n", f"- {gate.command}; exit 3\n- command: echo {{{{ n }}}}\n  n: [1, 2, 3]\n- echo\n"
    )
    with running(here, "q") as run:
        gate.wait()
        assert pegasus("stop").code == 0
        gate.open()
        result = run.result()
    assert result.code == 1, "a failure is more serious than a stop"
    assert "0 succeeded, 1 failed, 4 not started" in result.err, result


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("'false'", 1), ("exit 70", 1)])
def test_zero_only_if_all_jobs_succeeded(here: Path, command: str, code: int) -> None:
    write(here, "- node-1\n- node-2\n", f"- echo\n- {command}\n- echo\n")
    assert pegasus("q").code == code


def test_every_exit_code_is_documented_and_in_the_help(home: Path) -> None:
    documented = (TREE / "docs" / "exit-codes.md").read_text()
    for arguments in (["--help"], ["q", "--help"], ["b", "-h"]):
        run = pegasus(*arguments)
        assert run.code == 0, run
        text = " ".join(run.out.split()).partition("Exit codes: ")[2]
        for code in ExitCode:
            assert re.search(rf"(^|; ){int(code)} ", text), f"{code!r} is not in {text}"
            assert f"| {int(code)} | {code.name} |" in documented


def test_status_tells_what_ran_what_runs_and_what_is_left(here: Path) -> None:
    gate = Gate(here, "gate")
    write(here, "- node-1\n", f"- 'false'\n- {gate.command}\n- echo left\n")
    with running(here, "q") as run:
        gate.wait()
        shown = pegasus("status")
        found = json.loads(pegasus("status", "--json").out)
        gate.open()
        assert run.result().code == 1
    assert f"pid {run.process.pid}" in shown.out and "1 job left" in shown.out, shown
    assert re.search(r"^2 +running +node-1", shown.out, re.MULTILINE), shown
    assert re.search(r"^1 +failed +node-1 .* 1 +false", shown.out, re.MULTILINE), shown
    assert found["queued_in_file"] == 1 and [job["job"] for job in found["jobs"]] == [2, 1]


WAITS = "- command: exit 3\n  options: {retries: 3, retry_delay: 1h}\n- echo fine\n"


def test_a_job_that_is_cancelled_before_its_next_attempt_is_a_failure(here: Path) -> None:
    write(here, "- node-1\n", WAITS)
    with running(here, "q") as run:
        run.until_said("next attempt in")
        run.until_said("fine\n")
        assert pegasus("cancel", "1").code == 0
        result = run.result()
    assert result.code == 1, result
    assert re.search(
        r"^1 +cancelled +node-1 +exit 3 +cancelled before its next attempt", result.err, re.MULTILINE
    )
    assert result.err.splitlines()[-1] == "1 succeeded, 0 failed, 1 cancelled", result


def test_jobs_that_are_to_be_tried_again_are_counted_and_shown_with_their_time(here: Path) -> None:
    write(here, "- node-1\n", WAITS)
    for _ in range(2):
        with running(here, "q") as run:
            wait_until(
                lambda: json.loads(pegasus("status", "--json").out)["condition"], "the run to be there", 20
            )
            wait_until(lambda: '"queued": 1' in pegasus("status", "--json").out, "the job to wait", 20)
            shown = pegasus("status")
            (job,) = [j for j in json.loads(pegasus("status", "--json").out)["jobs"] if j["job"] == 1]
            assert pegasus("stop").code == 0
            result = run.result()
        assert result.code == 6 and "1 to be tried again" in result.err.splitlines()[-1], result
        assert re.search(r"^1 +queued +node-1 +in (59m\d\ds|1h00m) ", shown.out, re.MULTILINE), shown
        assert 3000 < job["due"] - job["ended"] < 4000


def test_logs_are_followed_from_attempt_to_attempt(here: Path) -> None:
    first, second = Gate(here, "first"), Gate(here, "second")
    lines = [
        "echo $PEGASUS_ATTEMPT",
        f"if mkdir {here}/tried 2>/dev/null",
        f"then {first.command}",
        "exit 3",
        "fi",
    ]
    (here / "job.sh").write_text("\n".join([*lines, second.command, ""]))
    write(here, "- node-1\n", f"- command: sh {here}/job.sh\n  options: {{retries: 2, retry_delay: 1s}}\n")
    with running(here, "q") as run:
        first.wait()
        with (
            running(here, "logs", "-f", "1") as every,
            running(here, "logs", "-f", "1", "--attempt", "1") as one,
        ):
            first.open()
            assert one.result().code == 0 and len(one.out.splitlines()) == 1
            second.wait()
            second.open()
            done = every.result()
            assert done.code == 0 and [line.split(".")[1] for line in done.out.splitlines()] == ["1", "2"], (
                done
            )
        assert run.result().code == 0

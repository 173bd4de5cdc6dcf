"""The summary at the end, and the exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pegasus_py.errors import ExitCode
from tests.e2e.program import TREE, Gate, pegasus, running, terminal, write


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

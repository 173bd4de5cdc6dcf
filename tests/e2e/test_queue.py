"""`pegasus q`: each entry once, on the next free sub-node; what leaves the file, and what stays."""

from __future__ import annotations

import itertools
from pathlib import Path

import yaml

from tests.e2e.program import Gate, pegasus, records, running, write
from tests.support.proxy import Proxy
from tests.support.sshd import SshFarm


def meeting(directory: Path, count: int) -> str:
    """A command that ends once `count` of its kind have begun."""
    return (
        f"cd {directory}; touch met.$PEGASUS_JOB_ID; i=0; "
        f"until [ $(ls met.* | wc -l) -ge {count} ]; do i=$((i + 1)); [ $i -lt 400 ] || exit 9; sleep 0.05; done"
    )


def left(queue: Path) -> str:
    """The queue file without the filler of consumed entries."""
    lines = queue.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#~"))


def test_each_entry_runs_once_on_parallel_sub_nodes(here: Path, farm: SshFarm) -> None:
    """Four jobs that wait for each other can only end if each of the four sub-nodes has one."""
    logins = {server.name: server.logins() for server in farm}
    meet = f"{meeting(here, 4)}; echo $PEGASUS_SUBNODE"
    write(here, "- hostname: [node-1, node-2]\n  gpu: [0, 1]\n", yaml.safe_dump([meet] * 4))

    run = pegasus("q")

    assert run.code == 0, run
    assert run.said == ["node-1/0", "node-1/1", "node-2/0", "node-2/1"]
    new = {name: farm[name].logins() - before for name, before in logins.items()}
    assert new == {"node-1": 2, "node-2": 2, "node-3": 0, "node-4": 0}, "one connection per sub-node"


def test_the_next_free_sub_node_takes_the_next_entry(here: Path) -> None:
    gate = Gate(here, "long")
    write(here, "- node-1\n- node-2\n", yaml.safe_dump([gate.command, "echo b", "echo c", "echo d"]))
    with running(here, "q") as run:
        gate.wait()
        run.until_said("] d\n")
        gate.open()
        result = run.result()
    assert result.code == 0 and result.said == ["b", "c", "d"], result
    assert len(result.nodes) == 1, "the busy one took another"


def test_all_connections_are_open_before_the_first_pop(here: Path, farm: SshFarm, ssh_home: Path) -> None:
    """node-2 is slower to connect; the two short jobs are shared out all the same."""
    write(here, "- node-1\n- node-2\n", "- echo a\n- echo b\n")
    with Proxy((farm["node-2"].address, farm["node-2"].port), delay=0.03) as proxy:
        farm.configure(ssh_home, {"node-2": proxy.address})
        run = pegasus("q")
    assert run.code == 0 and run.nodes == {"node-1", "node-2"}, run


def test_entries_appended_while_commands_run_are_run(here: Path) -> None:
    gate = Gate(here, "last")
    write(here, "- node-1\n- node-2\n", yaml.safe_dump([gate.command]))
    with running(here, "q") as run:
        gate.wait()
        with (here / "queue.yaml").open("a") as queue:
            queue.write("- echo appended\n")
        run.until_said("] appended\n")
        gate.open()
        assert run.result().code == 0, run.result()


def test_a_daemon_waits_for_more(here: Path) -> None:
    write(here, "- node-1\n", "")
    with running(here, "q", "--daemon") as run:
        for word in ("first", "second"):
            with (here / "queue.yaml").open("a") as queue:
                queue.write(f"- echo {word}\n")
            run.until_said(f"] {word}\n")
        assert pegasus("stop", "--wait").code == 0
        assert run.result().code == 0, run.result()


def test_one_job_leaves_the_file_per_start(here: Path) -> None:
    outer, inner = Gate(here, "outer"), Gate(here, "inner")
    first = f"- {outer.command}\n"
    sweep = (
        "- command: |\n"
        f"    if [ {{{{ x }}}}-{{{{ y }}}} = 1-0.10 ]; then {inner.command}; fi\n"
        "    echo {{ x }} {{ y }}\n"
        "  x: [1, 2]\n"
        "  y: [0.10, no]\n"
    )
    last = "# between\n- 'echo \"last\"'  # why\n"
    write(here, "- node-1\n", f"# before\n{first}\n{sweep}{last}")
    with running(here, "q") as run:
        outer.wait()
        assert left(here / "queue.yaml") == f"# before\n\n{sweep}{last}"
        outer.open()
        inner.wait()
        rest = left(here / "queue.yaml")
        assert rest.startswith("# before\n") and rest.endswith(last), rest
        entries = yaml.load(rest, Loader=yaml.BaseLoader)
        jobs = [job for e in entries[:-1] for job in itertools.product(_listed(e["x"]), _listed(e["y"]))]
        assert len(entries) <= 3 and jobs == [("1", "no"), ("2", "0.10"), ("2", "no")], rest
        inner.open()
        result = run.result()
    assert result.code == 0, result
    told = [line.partition("] ")[2] for line in result.out.splitlines()]
    assert told == ["1 0.10", "1 no", "2 0.10", "2 no", "last"], result


def _listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def test_a_sweep_of_a_million_jobs_stays_a_few_lines(here: Path) -> None:
    gate = Gate(here, "first")
    axis = "[" + ", ".join(map(str, range(100))) + "]"
    queue = f"- command: {gate.command!r}\n  a: {axis}\n  b: {axis}\n  c: {axis}\n"
    write(here, "- node-1\n", queue)
    with running(here, "q") as run:
        gate.wait()
        size = len(left(here / "queue.yaml"))
        assert size < 3 * len(queue) + 200, f"{size} bytes are left of {len(queue)}"
        assert pegasus("stop").code == 0
        gate.open()
        result = run.result()
    assert result.code == 6 and "999,999 not started" in result.err, result
    assert len(yaml.load((here / "queue.yaml").read_text(), Loader=yaml.BaseLoader)) <= 3


def test_bytes_that_are_not_consumed_stay(here: Path) -> None:
    """Quotes, comments, blanks and an old-fashioned line end, before and after the entries that are taken."""
    gate = Gate(here, "gate")
    rest = (
        b"\r\n# kept \xc3\xa9\r\n-   'echo  it''s'   # why\r\n\r\n"
        b'- {command: "echo \\t", z: [1,2]}\r\n# no newline at the end'
    )
    (here / "hosts.yaml").write_text("- node-1\n")
    (here / "queue.yaml").write_bytes(b"# top\r\n- " + gate.command.encode() + b"\r\n" + rest)
    with running(here, "q") as run:
        gate.wait()
        assert pegasus("stop").code == 0
        gate.open()
        assert run.result().code == 6
    assert (here / "queue.yaml").read_bytes() == b"# top\r\n" + rest


def test_other_files_and_consumed_beside_the_queue(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "jobs.yaml").write_text("- echo there\n")
    (here / "machines.yaml").write_text("- node-3\n")

    run = pegasus("q", "-H", "machines.yaml", "-Q", "sub/jobs.yaml")

    assert run.code == 0 and run.nodes == {"node-3"}, run
    assert records(here / "sub" / "consumed.yaml") == ["- command: echo there"]
    assert sorted(path.name for path in here.iterdir()) == ["machines.yaml", "sub"]


SWEEP = """\
- command: echo '{{ rate }}' "a:b" {{ word | q }}
  rate: 0.10
  word: [x, "it's #1: a"]
"""


def test_the_last_two_lines_of_consumed_run_the_last_command_again(here: Path) -> None:
    write(here, "- node-1\n", SWEEP)
    assert pegasus("q").code == 0
    last = (here / "consumed.yaml").read_text().splitlines(keepends=True)[-2:]
    (here / "queue.yaml").write_text("".join(last))

    run = pegasus("q")

    assert run.code == 0 and run.said == ["0.10 a:b it's #1: a"], run
    assert records(here / "consumed.yaml")[-1] + "\n" == last[1]


SOURCE_TEXT = """\
- command:
    - echo a {{ x }} "{{ y }}"
    - echo b {{ x }} "{{ y }}"
  x: [0.10, yes]
  y: [010, 1e-4, ~, 1:30]
"""


def test_values_keep_their_text_and_the_last_parameter_is_fastest(here: Path) -> None:
    write(here, "- node-1\n", SOURCE_TEXT)
    run = pegasus("q")
    expected = [f"{c} {x} {y}" for c in "ab" for x in ("0.10", "yes") for y in ("010", "1e-4", "~", "1:30")]
    assert [line.partition("] ")[2] for line in run.out.splitlines()] == expected, run


def test_host_parameters_and_templates_of_host_names(here: Path) -> None:
    shown = "echo {{ hostname }} {{ n }} {{ disk }} {{ m | replace('/', '--') }}"
    write(
        here,
        "- hostname: node-{{ n }}\n  n: [1, 2]\n  disk: /scratch\n",
        f"- command: {meeting(here, 2)}; {shown}\n  m: [org/a, org/b]\n",
    )
    run = pegasus("q")
    assert run.code == 0, run
    assert {line.rpartition(" ")[0] for line in run.said} == {"node-1 1 /scratch", "node-2 2 /scratch"}
    assert {line.rpartition(" ")[2] for line in run.said} == {"org--a", "org--b"}


def test_nothing_is_lost_or_run_twice_by_eight_sub_nodes(here: Path) -> None:
    hosts = "- hostname: [node-1, node-2, node-3, node-4]\n  slot_name: [a, b]\n"
    write(here, hosts, f"- command: echo {{{{ n }}}}\n  n: [{', '.join(map(str, range(200)))}]\n")
    run = pegasus("q")
    assert run.code == 0 and sorted(map(int, run.said)) == list(range(200)), run
    assert (here / "queue.yaml").read_text() == ""

"""Entries: what they mean, how they are taken one task at a time, and how they are written."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegasus_py.core.entries import Entry, consumed_record, dump_entry, dump_flow, parse_entry
from pegasus_py.core.model import RETRYABLE, JobOptions, JobState, Task
from pegasus_py.core.yamltext import items
from pegasus_py.errors import BadInput, Place


def entries(text: str) -> list[Entry]:
    return [parse_entry(item.node, "q.yaml") for item in items(text.encode(), "q.yaml")]


def only(text: str) -> Entry:
    (entry,) = entries(text)
    return entry


def test_a_bare_string_is_an_entry() -> None:
    (task,) = only("- . ./env; python train.py --bs 8\n").tasks()
    assert task == Task(". ./env; python train.py --bs 8")
    assert task.place == Place("q.yaml", 1, 3)


def test_parameters_keep_their_source_text_and_order() -> None:
    entry = only("- command: x\n  b: 0.10\n  a: [yes, 010, 1e-4, 'q']\n")
    assert entry == Entry(("x",), (("b", ("0.10",)), ("a", ("yes", "010", "1e-4", "q"))))


def test_the_last_parameter_is_fastest_and_commands_are_outermost_wherever_they_stand() -> None:
    entry = only("- low: [1, 2]\n  command: [a, b]\n  high: [3, 4]\n")
    tasks = [(task.command, *(value for _, value in task.params)) for task in entry.tasks()]
    assert tasks == list(product("ab", "12", "34"))
    assert entry.first().params == (("low", "1"), ("high", "3"))


def test_the_quiz_of_the_original() -> None:
    text = "- echo {{ hostname }}\n- command:\n    - a {{ low }}\n    - b\n  low:\n  - 1\n  - 2\n  high: [3, 4]\n"
    assert sum(entry.size for entry in entries(text)) == 9


def test_options() -> None:
    entry = only(
        "- command: x\n  options:\n    timeout: 1h30m\n    retries: 2\n    retry_delay: 500ms\n"
        "    retry_on: [lost, timed-out, lost]\n    lost_after: 2d\n    cancel: docker kill {{ c }}\n    name: my job\n"
    )
    assert entry.options == JobOptions(
        5400, 2, 0.5, (JobState.LOST, JobState.TIMED_OUT), 172800, "docker kill {{ c }}", "my job"
    )
    assert entry.first().options is entry.options
    assert all(part.options == entry.options for part in entry.rest())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- echo a: b\n", "q.yaml:1:3: an entry without `command`"),
        ("- {}\n", "q.yaml:1:3: an entry without `command`"),
        ("- [a, b]\n", "q.yaml:1:3: an entry is a command or a mapping"),
        ("-\n", "q.yaml:1:2: `command` has no value"),
        ("- '  '\n", "q.yaml:1:3: an empty command"),
        ("- command: [a, '']\n", "q.yaml:1:16: an empty command"),
        ("- command: []\n", "q.yaml:1:12: `command` is an empty list"),
        ("- command: {a: b}\n", "q.yaml:1:12: `command` takes a text or a list"),
        ("- command: x\n  bs: []\n", "q.yaml:2:7: `bs` is an empty list"),
        ("- command: x\n  bs:\n", "q.yaml:2:6: `bs` has no value"),
        ("- command: x\n  bs: [[1]]\n", "q.yaml:2:8: the list of `bs` takes texts only"),
        ("- command: x\n  bs: {a: 1}\n", "q.yaml:2:7: `bs` takes a text or a list"),
        ("- command: x\n  learning-rate: 1\n", "q.yaml:2:3: 'learning-rate' cannot be a parameter's name"),
        ("- command: x\n  not: 1\n", "q.yaml:2:3: 'not' cannot be a parameter's name"),
        ("- command: x\n  slots: 2\n", "q.yaml:2:3: `slots` is not supported yet"),
        ("- command: x\n  allocation_policy: p\n", "q.yaml:2:3: `allocation_policy` is not supported yet"),
        ('- "a\\0b"\n', "q.yaml:1:3: `command` has a NUL"),
        (
            "- command: x\n  options: fast\n",
            "q.yaml:2:12: `options` takes a mapping with any of: timeout, retries,",
        ),
        (
            "- command: x\n  options: {speed: 1}\n",
            "q.yaml:2:13: unknown option 'speed'; the options are: timeout, ",
        ),
        ("- command: x\n  options: {timeout: soon}\n", "q.yaml:2:22: timeout: 'soon' is not a duration"),
        ("- command: x\n  options: {timeout: 0}\n", "timeout: must be more than 0"),
        ("- command: x\n  options: {retries: -1}\n", "retries: '-1' is not a whole number"),
        ("- command: x\n  options: {retries: '²'}\n", "retries: '²' is not a whole number"),
        ("- command: x\n  options: {retries: [1]}\n", "`retries` takes one text"),
        (
            "- command: x\n  options: {retry_on: succeeded}\n",
            "retry_on: 'succeeded' is none of: lost, failed, timed-out",
        ),
        ("- command: x\n  options: {retry_on: []}\n", "`retry_on` is an empty list"),
        ("- command: x\n  options: {cancel: ''}\n", "cancel: is empty"),
        ('- command: x\n  options: {name: "a\\nb"}\n', "name: must be one line"),
    ],
)
def test_faults_name_their_place(text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        entries(text)
    assert says in str(caught.value)


# --- properties

_texts = st.one_of(
    st.text(max_size=20), st.text(st.sampled_from("ab:#-'\"[]{},&*!|> \n\t{{}}0.é"), max_size=12)
).map(lambda text: text.replace("\0", ""))
_commands = st.lists(_texts.filter(str.strip), min_size=1, max_size=3).map(tuple)
_names = st.sampled_from(["bs", "lr", "model_2", "größe", "y", "null", "on"])
_params = st.lists(
    st.tuples(_names, st.lists(_texts, min_size=1, max_size=3).map(tuple)),
    max_size=3,
    unique_by=lambda pair: pair[0],
).map(tuple)
_seconds = st.none() | st.floats(0.001, 1e8) | st.integers(1, 10**8).map(float)
_options = st.just(JobOptions()) | st.builds(
    JobOptions,
    timeout=_seconds,
    retries=st.none() | st.integers(0, 1000),
    retry_delay=_seconds,
    retry_on=st.none() | st.lists(st.sampled_from(RETRYABLE), min_size=1, unique=True).map(tuple),
    lost_after=_seconds,
    cancel=st.none() | _texts.filter(str.strip),
    name=st.none() | _texts.filter(lambda text: bool(text.strip()) and text.isprintable()),
)
_entries = st.builds(Entry, _commands, _params, _options)


@given(_entries, st.sampled_from([0, 2]))
@settings(max_examples=300, deadline=None)
def test_a_written_entry_reads_back_equal(entry: Entry, indent: int) -> None:
    text = dump_entry(entry, indent)
    assert text.endswith("\n")
    first, second = entries(f"{text}# c\n{' ' * indent}- b\n")
    assert first == entry and second == Entry(("b",))
    flow = dump_flow(entry)
    assert "\n" not in flow
    assert entries(f"[{flow}, {flow}]") == [entry, entry]


@given(_entries)
@settings(max_examples=200, deadline=None)
def test_first_and_rest_one_after_the_other_are_all_tasks(entry: Entry) -> None:
    queue, taken = [entry], []
    while queue:
        head = queue.pop(0)
        taken.append(head.first())
        rest = head.rest()
        assert len(rest) <= 1 + len(entry.params)
        queue[:0] = rest
        assert len(queue) <= 1 + len(entry.params)
    assert taken == list(entry.tasks())
    assert len(taken) == entry.size
    values = [values for _, values in entry.params]
    names = [name for name, _ in entry.params]
    expected = [
        Task(c, tuple(zip(names, vs, strict=True)), entry.options)
        for c, *vs in product(entry.commands, *values)
    ]
    assert taken == expected


def test_a_sweep_of_a_million_million_is_not_expanded() -> None:
    hundred = "[" + ", ".join(map(str, range(100))) + "]"
    entry = only("- command: x\n" + "".join(f"  p{i}: {hundred}\n" for i in range(6)))
    assert entry.size == 10**12
    rest = entry.rest()
    assert len(rest) == 6
    assert sum(part.size for part in rest) == 10**12 - 1
    assert dump_entry(entry).count("\n") == 7


@given(_entries, _texts)
@settings(max_examples=200, deadline=None)
def test_a_consumed_record_runs_the_task_again(entry: Entry, note: str) -> None:
    task = entry.first()
    record = consumed_record(task, note)
    comment, _, text = record.partition("\n")
    assert comment.startswith("# ")
    assert [one.first() for one in entries(record)] == [task]
    assert text.startswith(("- command: ", "- {command: "))
    if "\n" not in task.command.rstrip("\n"):
        assert record.count("\n") == 2


def test_consumed_records_are_canonical_and_readable() -> None:
    options = JobOptions(timeout=3600)
    records = [
        consumed_record(Task("echo hi"), "job 1"),
        consumed_record(Task("echo {{ a }}", (("a", "0.10"), ("b", "x, y")), options), "job\x1b[0m 2\n"),
        consumed_record(Task("a\nb\n", (("a", "1"),)), "job 3"),
    ]
    assert records == [
        "# job 1\n- command: echo hi\n",
        "# job [0m 2 \n- {command: 'echo {{ a }}', a: 0.10, b: 'x, y', options: {timeout: 1h}}\n",
        "# job 3\n- command: |\n    a\n    b\n  a: 1\n",
    ]

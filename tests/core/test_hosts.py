"""Hosts files: products, templates in host names, and names of sub-nodes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegasus_py.core import hosts
from pegasus_py.core.hosts import parse_hosts
from pegasus_py.core.model import SubNode
from pegasus_py.core.yamlwrite import inline
from pegasus_py.errors import BadInput


def parse(text: str) -> tuple[SubNode, ...]:
    return parse_hosts(text.encode(), "hosts.yaml")


def names(text: str) -> list[str]:
    return [subnode.name for subnode in parse(text)]


def test_bare_strings_are_hosts() -> None:
    first, second = parse("# mine\n- node-1\n- user@node-2\n")
    assert first == SubNode("node-1", "node-1", (("hostname", "node-1"),))
    assert second.hostname == "user@node-2"


def test_hostname_is_slowest_and_the_last_parameter_fastest_wherever_they_stand() -> None:
    subnodes = parse("- gpu: [g0, 01]\n  hostname:\n    - a\n    - b\n  mem: [x, y]\n  why: same\n")
    assert [subnode.name for subnode in subnodes] == [
        *("a/g0/x", "a/g0/y", "a/01/x", "a/01/y"),
        *("b/g0/x", "b/g0/y", "b/01/x", "b/01/y"),
    ]
    assert subnodes[2].params == (("hostname", "a"), ("gpu", "01"), ("mem", "x"), ("why", "same"))


def test_hostnames_may_be_templates_of_host_parameters() -> None:
    subnodes = parse("- hostname: ['{{ rack }}-n{{ i }}', fixed]\n  rack: r1\n  i: [1, 2]\n")
    assert [s.hostname for s in subnodes] == ["r1-n1", "r1-n2", "fixed", "fixed"]
    assert [s.name for s in subnodes] == ["r1-n1", "r1-n2", "fixed/1", "fixed/2"]
    assert subnodes[0].params[0] == ("hostname", "r1-n1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- a\n- a\n", ["a", "a#2", "a#3"]),
        ("- a\n- a\n- a#2\n", ["a", "a#3", "a#2"]),
        ("- hostname: a\n  x: [1, 1]\n", ["a", "a#2"]),
        ("- hostname: a\n  x: 1\n- hostname: a\n  x: 2\n- b\n", ["a/1", "a/2", "b"]),
        ("- hostname: a\n  x: ['a b', \"c\\nd\\x1b\", '']\n", ["a/a_b", "a/c_d_", "a"]),
        ("- hostname: a\n  x: [" + "y" * 100 + ", z]\n", ["a/" + "y" * 37 + "...", "a/z"]),
    ],
)
def test_names_are_short_and_unique(text: str, expected: list[str]) -> None:
    assert names(text) == expected


def test_spool_is_kept() -> None:
    (subnode,) = parse("- hostname: a\n  options: {spool: ~/tmp/p}\n")
    assert subnode.spool == "~/tmp/p"
    assert subnode.params == (("hostname", "a"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "hosts.yaml: no hosts"),
        ("[]\n", "hosts.yaml: no hosts"),
        ("a\n", "hosts.yaml:1:1: a list of hosts is expected"),
        ("- [a]\n", "hosts.yaml:1:3: a host is a name or a mapping"),
        ("- a\n- x: 1\n", "hosts.yaml:2:3: a host without `hostname`"),
        ("- a b\n", "hosts.yaml:1:3: 'a b' cannot be a hostname"),
        ("- -oProxyCommand=x\n", "cannot be a hostname"),
        ('- "a\\x1b"\n', "cannot be a hostname"),
        ("- ''\n", "hosts.yaml:1:3: '' cannot be a hostname"),
        ("-\n", "`hostname` has no value"),
        ("- hostname: []\n", "`hostname` is an empty list"),
        ("- hostname: [a, '{{ b }}']\n", "hosts.yaml:1:17: 'b' is undefined; defined here: nothing"),
        ("- hostname: a\n  slots: 2\n", "hosts.yaml:2:3: `slots` is not supported yet"),
        (
            "- hostname: a\n  options: {spol: /x}\n",
            "hosts.yaml:2:13: unknown option 'spol'; a host's options are: spool",
        ),
        ("- hostname: a\n  options: {spool: x}\n", "hosts.yaml:2:20: spool: takes a directory"),
        ("- hostname: a\n  options: x\n", "hosts.yaml:2:12: `options` takes a mapping"),
        ("- hostname: a\n  hostname: b\n", "hosts.yaml:2:3: the key 'hostname' is here a second time"),
        ("- hostname: a\n  a-b: 1\n", "hosts.yaml:2:3: 'a-b' cannot be a parameter's name"),
    ],
)
def test_faults_name_their_place(text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text)
    assert says in str(caught.value)


def test_a_product_that_is_too_large_is_refused_before_it_is_built() -> None:
    hundred = "[" + ", ".join(map(str, range(100))) + "]"
    with pytest.raises(BadInput, match=f"more than {hosts.MAX_SUBNODES:,} sub-nodes"):
        parse("- hostname: a\n" + "".join(f"  p{i}: {hundred}\n" for i in range(6)))


_values = st.lists(st.text(max_size=4).filter(lambda t: "\0" not in t), min_size=1, max_size=3)


@given(st.lists(st.tuples(st.sampled_from(["a", "a#2", "b"]), _values), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_names_are_always_unique_words(groups: list[tuple[str, list[str]]]) -> None:
    lines = []
    for host, values in groups:
        lines.append(
            f"- hostname: {inline(host)}\n  x: [{', '.join(inline(v, flow=True) for v in values)}]\n"
        )
    found = names("".join(lines))
    assert len(set(found)) == len(found) == sum(len(values) for _, values in groups)
    assert all(name.isprintable() and len(name.split()) == 1 for name in found)

"""Hosts files: hostnames times parameters, as sub-nodes with names that are unique and short."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from pegasus_py.core import grid, yamltext
from pegasus_py.core.fields import a_text, at, name_of_parameter, texts
from pegasus_py.core.model import Params, SubNode
from pegasus_py.core.nodes import Mapping, Node, Scalar
from pegasus_py.core.nodes import Sequence as Items
from pegasus_py.core.template import render
from pegasus_py.errors import BadInput, Place

MAX_SUBNODES = 10_000
KEYS = ("spool",)
"""What `options:` of a host can have."""


class _Host(Struct, frozen=True):
    """One sub-node before it has a name."""

    hostname: str
    params: Params
    spool: str | None

    def value(self, name: str) -> str:
        return dict(self.params).get(name, "")


def parse_hosts(data: bytes, file: str) -> tuple[SubNode, ...]:
    """The sub-nodes of a hosts file, in the order written, hostname slowest and the last parameter fastest.

    Each has `hostname` first among its parameters. Raises BadInput, also for a file without any host.
    """
    node = yamltext.load(data, file)
    if node is None or (isinstance(node, Items) and not node.items):
        raise BadInput(Place(file), 'no hosts; write one a line, as "- node-1" (or "- localhost")')
    if not isinstance(node, Items):
        raise BadInput(at(node, file), 'a list of hosts is expected here; begin each with "- "')
    hosts: list[_Host] = []
    for item in node.items:
        hosts += _parse_item(item, file, MAX_SUBNODES - len(hosts))
    return _named(hosts)


def _parse_item(node: Node, file: str, most: int) -> list[_Host]:
    if isinstance(node, Scalar):
        names: tuple[Scalar, ...] = (node,)
        params: list[tuple[str, tuple[str, ...]]] = []
        spool = None
    elif isinstance(node, Mapping):
        names, params, spool = _parse_mapping(node, file)
    else:
        raise BadInput(
            at(node, file), "a host is a name or a mapping with `hostname`, not a list; indent less"
        )
    templates = tuple(a_text(name, file, "hostname") for name in names)
    dimensions = [values for _, values in params]
    if len(templates) * grid.size(dimensions) > most:
        raise BadInput(
            at(node, file), f"this makes more than {MAX_SUBNODES:,} sub-nodes; use fewer parameters"
        )
    hosts = []
    for name, template in zip(names, templates, strict=True):
        for values in grid.combinations(dimensions):
            own = tuple(zip((key for key, _ in params), values, strict=True))
            hostname = render(template, own, at(name, file))
            hosts.append(_Host(_checked(hostname, name, file), own, spool))
    return hosts


def _parse_mapping(
    node: Mapping, file: str
) -> tuple[tuple[Scalar, ...], list[tuple[str, tuple[str, ...]]], str | None]:
    """Hostnames, parameters and the spool directory."""
    names: tuple[Scalar, ...] = ()
    params = []
    spool = None
    if all(key.text != "hostname" for key, _ in node.items):
        raise BadInput(at(node, file), "a host without `hostname`; add it")
    for key, value in node.items:
        if key.text == "hostname":
            names = texts(value, file, "hostname")
        elif key.text == "options":
            spool = _spool(value, file)
        elif key.text == "slots":
            raise BadInput(at(key, file), "`slots` is not supported yet; remove it")
        else:
            name = name_of_parameter(key, file)
            params.append((name, tuple(a_text(one, file, name) for one in texts(value, file, name))))
    return names, params, spool


def _spool(node: Node, file: str) -> str | None:
    if not isinstance(node, Mapping):
        raise BadInput(at(node, file), f"`options` takes a mapping with any of: {', '.join(KEYS)}")
    spool = None
    for key, value in node.items:
        if key.text not in KEYS:
            raise BadInput(
                at(key, file), f"unknown option {key.text!r}; a host's options are: {', '.join(KEYS)}"
            )
        spool = a_text(value, file, key.text)
        if not spool.isprintable() or not spool.startswith(("/", "~/")):
            raise BadInput(at(value, file), "spool: takes a directory that begins with / or ~/")
    return spool


def _checked(hostname: str, node: Scalar, file: str) -> str:
    if not hostname or not hostname.isprintable() or " " in hostname or hostname.startswith("-"):
        raise BadInput(at(node, file), f"{hostname!r} cannot be a hostname; write one word, as ssh takes it")
    return hostname


# --- names


def _named(hosts: Sequence[_Host]) -> tuple[SubNode, ...]:
    groups: dict[str, list[_Host]] = {}
    for host in hosts:
        groups.setdefault(host.hostname, []).append(host)
    varying = {hostname: _varying(group) for hostname, group in groups.items()}
    # A name that needs no number keeps it, wherever it stands: "a#2" may be somebody's hostname.
    wanted = [_name(host, varying[host.hostname]) for host in hosts]
    taken = set(wanted)
    used: dict[str, int] = {}
    subnodes = []
    for host, name in zip(hosts, wanted, strict=True):
        used[name] = number = used.get(name, 0) + 1
        unique = name
        while number > 1 and unique in taken:
            unique = f"{name}#{number}"
            used[name], number = number, number + 1
        taken.add(unique)
        subnodes.append(
            SubNode(unique, host.hostname, (("hostname", host.hostname), *host.params), host.spool)
        )
    return tuple(subnodes)


def _varying(group: Sequence[_Host]) -> list[str]:
    """The parameters that tell the sub-nodes of one host apart, in the order written."""
    names = dict.fromkeys(name for host in group for name, _ in host.params)
    return [name for name in names if len({host.value(name) for host in group}) > 1]


def _name(host: _Host, varying: Sequence[str]) -> str:
    parts = (_word(host.value(name)) for name in varying)
    return "/".join([host.hostname, *(part for part in parts if part)])


def _word(value: str) -> str:
    """A value as part of a name: printable, without spaces, not long."""
    word = "".join(c if c.isprintable() and c != " " else "_" for c in value)
    return word if len(word) <= 40 else word[:37] + "..."

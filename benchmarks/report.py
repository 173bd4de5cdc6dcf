"""The table of what was measured, beside what was to be reached, and the same as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure


@dataclass(frozen=True)
class Target:
    """A bound for the median: of the ratio to `Row.peer` (`times`), or of the figure itself."""

    bound: float
    at_least: bool
    times: bool

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def text(self, unit: str) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g} {'x' if self.times else unit}".strip()


@dataclass(frozen=True)
class Row:
    """One line: our figure, a peer's from the same rounds, their ratio, and the target if there is one."""

    what: str
    unit: str
    ours: Figure | None
    peer: str = ""
    theirs: Figure | None = None
    ratio: Figure | None = None
    target: Target | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the median keeps the target; None without one, or without the peer that it speaks of."""
        judged = self.ratio if self.target is not None and self.target.times else self.ours
        if self.target is None or judged is None:
            return None
        return self.target.holds(judged.median)


@dataclass(frozen=True)
class Section:
    """The rows of one case, and what the reader must know of how they came about."""

    case: str
    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "tcp": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
    }


def as_text(sections: Sequence[Section], *, judge: bool = True) -> str:
    """A block of aligned lines for each section; with `judge`, they say which targets are reached."""
    head = ("", "figure", "min .. max", "peer", "peer's", "ratio", "min .. max", "target", "")
    lines = []
    for section in sections:
        rows = [head, *(_cells(row, judge) for row in section.rows)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines += [f"== {section.title} [{section.case}]"]
        for row in rows:
            cells = [
                cell.ljust(w) if i in (0, 3, 8) else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        lines += [*(f"  ({note})" for note in section.notes), ""]
    return "\n".join(lines)


def as_json(about: dict[str, Any], sections: Sequence[Section], missing: Sequence[str]) -> str:
    """Everything, with the single values of each round."""
    made = {
        "machine": about,
        "missing_peers": list(missing),
        "cases": [
            {
                "case": section.case,
                "title": section.title,
                "notes": list(section.notes),
                "rows": [_as_dict(row) for row in section.rows],
            }
            for section in sections
        ],
    }
    return json.dumps(made, indent=1)


def _cells(row: Row, judge: bool) -> tuple[str, ...]:
    target = row.target.text(row.unit) if row.target else ""
    reached = (
        {True: "ok", False: "MISSED", None: "" if row.target is None else "?"}[row.reached] if judge else ""
    )
    return (
        row.what,
        _value(row.ours, row.unit),
        _spread(row.ours),
        row.peer,
        _value(row.theirs, row.unit),
        _value(row.ratio, "x"),
        _spread(row.ratio),
        target,
        reached,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _value(figure: Figure | None, unit: str) -> str:
    return "" if figure is None else f"{_number(figure.median)} {unit}".strip()


def _spread(figure: Figure | None) -> str:
    if figure is None or len(figure.values) < 2:
        return ""
    return f"{_number(figure.low)} .. {_number(figure.high)}"


def _as_dict(row: Row) -> dict[str, Any]:
    made: dict[str, Any] = {"what": row.what, "unit": row.unit, "peer": row.peer or None}
    for name, figure in (("figure", row.ours), ("peer_figure", row.theirs), ("ratio", row.ratio)):
        made[name] = None
        if figure is not None:
            made[name] = {
                "median": figure.median,
                "min": figure.low,
                "max": figure.high,
                "rounds": list(figure.values),
            }
    made["target"] = row.target.text(row.unit) if row.target else None
    made["reached"] = row.reached
    return made

"""Cartesian products that are never written out: dimensions in order, the last one fastest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

Dimensions = Sequence[tuple[str, ...]]
"""The values of each dimension; none is empty."""


def size(dimensions: Dimensions) -> int:
    """How many combinations there are."""
    return prod(len(values) for values in dimensions)


def first(dimensions: Dimensions) -> tuple[str, ...]:
    return tuple(values[0] for values in dimensions)


def rest(dimensions: Dimensions) -> Iterator[tuple[tuple[str, ...], ...]]:
    """All combinations but the first, in order, as at most as many products as there are dimensions.

    What follows the first combination is: the same but for a later value in the last dimension; then the same but for a
    later value in the last but one, with all of the last; and so on.
    """
    for i in reversed(range(len(dimensions))):
        if len(dimensions[i]) > 1:
            fixed = [values[:1] for values in dimensions[:i]]
            yield (*fixed, dimensions[i][1:], *dimensions[i + 1 :])


def combinations(dimensions: Dimensions) -> Iterator[tuple[str, ...]]:
    return product(*dimensions)

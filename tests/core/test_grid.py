"""Products that are never written out: what is left after the first combination."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from pegasus_py.core import grid

_dimensions = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4
)


@given(_dimensions)
def test_first_and_rest_are_the_product_in_order(dimensions: list[tuple[str, ...]]) -> None:
    rest = list(grid.rest(dimensions))
    assert len(rest) <= len(dimensions)
    assert all(all(values for values in part) for part in rest)
    found = [grid.first(dimensions)] + [one for part in rest for one in product(*part)]
    assert found == list(product(*dimensions)) == list(grid.combinations(dimensions))
    assert grid.size(dimensions) == len(found)


@given(_dimensions)
def test_taking_one_after_the_other_never_keeps_more_than_one_part_a_dimension(
    dimensions: list[tuple[str, ...]],
) -> None:
    queue: list[tuple[tuple[str, ...], ...]] = [tuple(dimensions)]
    taken = []
    while queue:
        head = queue.pop(0)
        taken.append(grid.first(head))
        queue[:0] = grid.rest(head)
        assert len(queue) <= len(dimensions)
    assert taken == list(product(*dimensions))

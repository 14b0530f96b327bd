"""Deadlines, as people write them."""

import pytest

from nixherd.base.names import parse_seconds


@pytest.mark.parametrize(
    "given", ["nan", "inf", "-inf", float("nan"), "1e999", "1e300", 0, -1, 2592001, True, "soon", "", None]
)
def test_what_is_no_number_of_seconds(given: object) -> None:
    with pytest.raises(ValueError):
        parse_seconds(given)


def test_seconds() -> None:
    assert (parse_seconds("1.5"), parse_seconds(300)) == (1.5, 300.0)

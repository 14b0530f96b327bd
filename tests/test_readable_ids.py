"""What parametrized tests are called by."""

import re
from dataclasses import dataclass
from functools import partial

import pytest

from tests.readable_ids import LONGEST, readable


@dataclass(frozen=True)
class Disk:
    name: str
    size: int = 8
    parts: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("short", None),
        (3, None),
        (None, None),
        (object(), "object"),
        (lambda: None, None),
        ([object(), lambda: None], None),
        ([], "none"),
        (["vm", "start", 110], "vm start 110"),
        ({"cores": 4, "boot": ["scsi0", None]}, "cores=4,boot=(scsi0 None)"),
        ({"b", "a"}, "a b"),
        (Disk("scsi0", parts=("x",)), "Disk(name=scsi0,parts=(x))"),
        (partial(max, 1), "max 1"),
        (re.compile, "compile"),
        (ValueError("no room"), "ValueError(no room)"),
        (b"\x00a\xff", r"\x00a\xff"),
        ("two\nlines " + "x" * LONGEST, "two lines " + "x" * (LONGEST - 12) + ".."),
    ],
    ids=lambda value: None,
)
def test_a_value_has_a_short_name(value: object, name: str | None) -> None:
    assert readable(value) == name


def test_no_test_is_numbered(request: pytest.FixtureRequest) -> None:
    """A value that has no name gets one where it is listed: `pytest.param(…, id="…")` or `ids=[…]`."""
    numbered = []
    for item in request.session.items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        names = "|".join(map(re.escape, parameters))
        if names and re.search(rf"[\[-]({names})\d+[\]-]", item.nodeid):
            numbered.append(item.nodeid)
    allowed = ("test_readable_ids.py",)
    assert [each for each in numbered if not any(name in each for name in allowed)] == []

"""A document of a file: what `status --json` writes is read as it was, anything else is refused, with the place."""

import json
from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import Usage
from nixherd.overview.document import Difference, Kind, Mend, Overview
from nixherd.overview.reading import read_overview
from tests.nixherd.overview.test_metrics import DOWN, WEB, document

GONE = object()


def changed(path: str, value: Any) -> str:
    """The document with another value at one place."""
    whole: Any = json.loads(json.dumps(document(WEB)))
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    at = whole
    for part in way:
        at = at[part]
    if value is GONE:
        del at[last]
    else:
        at[last] = value
    return json.dumps(whole)


def test_what_was_written_is_read() -> None:
    mended = replace(WEB, differences=(Difference(Kind.SYSTEM, "x", Mend.DEPLOY, ("nixherd", "deploy", "web01")),))
    overview = Overview("/fleet", "2026-01-31T12:00:00Z", None, (mended, DOWN), seconds=1.5)
    assert read_overview(json.dumps(overview.to_json()), "a.json") == overview


def test_what_another_version_of_this_form_adds_or_lacks_is_not_known() -> None:
    assert read_overview(changed("hosts.0.reach.colour", "red"), "a.json").hosts == (WEB,)
    assert read_overview(changed("hosts.0.memory", GONE), "a.json").hosts == (replace(WEB, memory=None),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not JSON: Expecting value"),
        ("[" * 100_000, "is not JSON: "),
        ("[]", "it has no version and no hosts"),
        ('{"hosts": []}', "it has no version and no hosts"),
        (changed("version", 2), "is of version 2 of that document, and this nixherd reads 1"),
        (changed("version", "\x1b"), r"is of version \"\\u001b\" of that document"),
        (changed("hosts.0.host", GONE), r"hosts\[0\].host is missing"),
        (changed("hosts.0.state", "fine"), r"hosts\[0\].state is \"fine\", not one of same, differs"),
        (changed("hosts.0.reach", []), r"hosts\[0\].reach is \[\], not an object"),
        (changed("hosts.0.reach.answered", "yes"), r"hosts\[0\].reach.answered is \"yes\", not true or false"),
        (changed("hosts.0.reach.age", True), r"hosts\[0\].reach.age is true, not a whole number"),
        (changed("hosts.0.reach.at", "noon"), r"hosts\[0\].reach.at is \"noon\", not a time with its zone"),
        (changed("hosts.0.tags", "a"), r"hosts\[0\].tags is \"a\", not a list"),
        (changed("hosts.0.unknown", {"units": 1}), r"hosts\[0\].unknown.units is 1, not a text"),
        (changed("taken", "2026-01-31T12:00:00"), "taken is .*, not a time with its zone"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text: str, why: str) -> None:
    with pytest.raises(Usage, match=f"^a.json: .*{why}") as caught:
        read_overview(text, "a.json")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "nixherd status --json" in str(caught.value)

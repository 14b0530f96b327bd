"""The published form: every document is of it, and one that is not is refused by it."""

import json
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from nixherd.overview.document import Overview
from nixherd.overview.schema import schema
from tests.overviews import host, overview, overviews

VALIDATOR = Draft202012Validator(schema())


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


@given(overviews(most=5))
def test_every_document_is_of_it(made: Overview) -> None:
    VALIDATOR.validate(json.loads(json.dumps(made.to_json())))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("hosts", 0, "state"), "ok"),
        (("hosts", 0, "units", "failed"), "a.service"),
        (("hosts", 0, "revision", "behind"), "3"),
        (("hosts", 0, "unknown"), {"units": None}),
        (("summary", "same"), -1),
        (("exit",), 2),
    ],
)
def test_what_is_not_of_it_is_refused(path: tuple[str | int, ...], value: Any) -> None:
    document = json.loads(json.dumps(overview(hosts=(host("dev"),)).to_json()))
    part = document
    for each in path[:-1]:
        part = part[each]
    part[path[-1]] = value
    assert not VALIDATOR.is_valid(document)


def test_what_a_later_version_adds_is_allowed() -> None:
    document = {**overview(hosts=(host("dev"),)).to_json(), "more": 1}
    assert VALIDATOR.is_valid(json.loads(json.dumps(document)))

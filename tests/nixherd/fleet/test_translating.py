"""Names that people use in hosts.nix, and ours."""

from typing import Any

import pytest

from nixherd.fleet.beside import Beside
from nixherd.fleet.nix_values import NixOther, NixPath
from nixherd.fleet.schema import Place, fields_of
from nixherd.fleet.translating import _WORDS, entries_in, shape_of, translation
from tests.conftest import HOST_KEY


def test_the_table_is_of_our_fields_and_of_no_name_twice() -> None:
    assert _WORDS.keys() <= fields_of(Place.HOST).keys()
    words = [word for text in _WORDS.values() for word in text.split()]
    assert sorted(words) == sorted(set(words))
    assert not set(words) & fields_of(Place.HOST).keys()


@pytest.mark.parametrize(
    ("entries", "fields", "unfit", "unread"),
    [
        ({"a": {"ip": "10.0.0.1"}, "b": {"ip": 5}}, {}, ["ip"], []),
        ({"a": {"ip": "10.0.0.1"}, "b": {}}, {"addresses": ("ip",)}, [], []),
        ({"a": {"ip": "10.0.0.1", "addresses": ["x"]}}, {}, [], ["ip"]),
        ({"a": {"ip": "", "ipv4": "10.0.0.1"}}, {"addresses": ("ipv4",)}, ["ip"], []),
        ({"a": {"pubkey": HOST_KEY}}, {"publicKey": ("pubkey",)}, [], []),
        ({"a": {"pubkey": "age1abc"}}, {}, ["pubkey"], []),
        ({"a": {"ssh": {"port": 23, "user": "al"}}}, {"user": ("ssh", "user"), "port": ("ssh", "port")}, [], []),
        ({"a": {"ssh": "yes", "rack": 1, "_note": 2}}, {}, [], ["rack", "ssh"]),
        ({"a": {"tags": {"x": 1}, "groups": ["g"]}}, {"tags": ("groups",)}, ["tags"], []),
        ({"a": {"tags": {"x": 1}}}, {"tags": ()}, ["tags"], []),
        # left out, it would protect less than its author believes
        ({"a": {"access": 5, "healthChecks": "x"}}, {}, ["access", "healthChecks"], []),
        ({"a": {"ip": None}}, {}, [], ["ip"]),
    ],
)  # fmt: skip
def test_a_name_counts_where_its_values_fit(
    entries: dict[str, dict[str, Any]], fields: dict[str, Any], unfit: list[str], unread: list[str]
) -> None:
    found = translation(entries)
    assert dict(found.fields) == fields
    assert sorted(found.unfit) == unfit
    assert list(found.unread) == unread


def test_what_was_translated_is_not_near_a_name_of_ours() -> None:
    """`public_key` alone would be taken for a misspelt publicKey."""
    entry = {"public_key": HOST_KEY, "ssh": {"port": 23}, "tags": {"a": 1}}
    fields = {"publicKey": ("public_key",), "port": ("ssh", "port"), "tags": ()}
    translated = Beside(fields=fields).translated(entry)
    assert translated == {"publicKey": HOST_KEY, "port": 23, "tags": None, "ssh": {"port": 23}}


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ({"a": {"ip": "x", "ssh": {"port": 1}}, "b": {"user": 1}}, "2 hosts with ip, ssh.port, user"),
        ({"a": {"ip": "x"}}, "1 host with ip"),
        ({"a": {}, "_b": 5}, "1 host with no attributes"),
        ({}, "a set without hosts"),
        ({"a": "10.0.0.1", "b": 5}, "a set of integers and strings"),
        ([1], "a list"),
        (NixOther("<function>"), "a function"),
        (NixPath("/x"), "a path"),
    ],
)  # fmt: skip
def test_a_shape_is_told_without_values(hosts: Any, words: str) -> None:
    assert shape_of(hosts) == words
    assert (entries_in(hosts) is None) is not words.startswith(("1 host", "2 hosts", "a set without"))

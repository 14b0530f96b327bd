"""A hosts.nix of another shape than ours, and the line that says what makes it work."""

from typing import Any

import pytest

from nixherd.base.errors import Finding
from nixherd.fleet import from_hosts_file, other_shape
from nixherd.fleet.beside import Beside
from nixherd.fleet.nix_values import NixOther
from nixherd.fleet.outputs import Outputs
from nixherd.fleet.validate import find

FLAKE = Outputs(("db", "web"))
OF_YOUR_OWN = "where it is a file of your own, write nixherd.nix: { useHostsFile = false; }"


def errors(hosts: Any) -> list[Finding]:
    findings: list[Finding] = []
    entries = from_hosts_file.entries_of(hosts, Beside(), findings)
    from_hosts_file.configurations_of(entries, lambda: FLAKE)
    return [finding for finding in find(entries, None, findings) if not finding.is_warning]


@pytest.mark.parametrize(
    ("hosts", "line"),
    [
        (NixOther("<function>"), f"is a function, not a set of hosts; {OF_YOUR_OWN}"),
        ([{"name": "web"}], f"is a list, not a set of hosts; {OF_YOUR_OWN}"),
        ({"web": "10.0.0.5"}, f"is a set of strings, not a set of hosts; {OF_YOUR_OWN}"),
        ({"web": {"system": "x86_64-linux"}}, f"says nothing of web that nixherd reads; {OF_YOUR_OWN}"),
        (
            {"web": {"sshUser": "al"}, "db": {"sshUser": "al"}},
            "web.user: missing (and 1 more); `nixherd init` writes a nixherd.nix that takes sshUser for user",
        ),
        (
            {"web": {"ip": "10.0.0.5"}},
            "web.user: missing; `nixherd init --user NAME` writes a nixherd.nix that takes ip for addresses",
        ),
    ],
)
def test_what_it_is_and_what_to_write(hosts: Any, line: str) -> None:
    assert other_shape.why(hosts, errors(hosts), lambda: FLAKE) == f"hosts.nix: {line}"


@pytest.mark.parametrize(
    "hosts",
    [
        {"web": {"user": "al", "port": "x"}},  # a mistake in one of ours
        {"web": {"user": "al"}, "db": []},
        {"web": {"ip": "10.0.0.5", "user": 5}},
        {"web": {"hostname": "web", "rack": 1}},
    ],
)
def test_one_of_ours_with_a_mistake_is_told_of_that(hosts: Any) -> None:
    assert errors(hosts)
    assert other_shape.why(hosts, errors(hosts), lambda: FLAKE) is None


@pytest.mark.parametrize("hosts", [NixOther("<function>"), {"web": {"system": "x86_64-linux"}}])
def test_a_flake_without_hosts_does_not_help(hosts: Any) -> None:
    assert other_shape.why(hosts, errors(hosts), Outputs) is None


def test_a_sound_one_with_an_address_in_other_words_is_warned_of() -> None:
    entry = {"ip": "10.0.0.5", "user": "al"}
    assert str(other_shape.unread({"web": entry})) == (
        "warning: hosts.nix: ip: means nothing to nixherd; "
        "`nixherd init` writes a nixherd.nix that takes ip for addresses"
    )
    assert other_shape.unread({"web": {**entry, "addresses": ["10.0.0.5"]}}) is None
    assert other_shape.unread({"web": {"user": "al"}, "_list": []}) is None
    assert other_shape.unread([]) is None

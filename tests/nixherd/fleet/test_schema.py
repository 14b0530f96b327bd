"""The table of fields: what it says is what is obeyed, and docs/fields.md is made from it. UPDATE_DOCS=1 writes it."""

import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.errors import Usage
from nixherd.deploy.options import Engine, Goal, MaxFail, Options
from nixherd.fleet.field_types import OneOf, Share, is_address
from nixherd.fleet.guest_types import Devices, Features
from nixherd.fleet.models import GuestType
from nixherd.fleet.schema import COMMON, FIELDS, OPERATORS, Field, Place, fields_of

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "fields.md"

INTRODUCTION = """\
# What hosts.nix, nixherd.nix and vms/definitions.nix may say

*Made from the table in [fields.py](../nixherd/fleet/schema.py), as the parser and its findings are.*

Everything below is obeyed, and checked when the fleet is loaded: what is wrong is a line each, all at once, and nothing
is done. `nixherd check` says every error and every warning (`--json`: as a document), and ends with 0 only where there
is none; every other command says warnings on stderr, once, and a deployment's report has them as `warnings`.

Any other attribute is your own, in any form. But a name that is misspelled would protect nothing, and say nothing:

- one that is a name below but for case, `-` and `_` is an error where the name **protects** (bold below), else a
  warning;
- one that is close to a name below (a letter or two) is a warning, and an error where that is `readonly`, `access` or
  `healthChecks`. So are these names themselves where they protect nothing, such as `readonly` in hosts.nix, or
  `healthChecks` of a managed guest;
- one that begins with `_` is your own and left alone; in hosts.nix it is not a host;
- common ones are your own, too, however close they are:
  {common}.

What opens the gate of a deployment is said by whoever deploys, with `--data` or in group data, never in the tree:
{operators}.
"""

NOTES = {
    Place.HOST: "What is said of deployments ([deploying](deploying.md)) is overridden by group data and `--data`.",
    Place.BESIDE: "For a flake without hosts.nix, or with one of another shape ([how](any-fleet.md)).",
    Place.MANAGED: "What is not said of a guest stays as it is on the hypervisor ([how it is kept](proxmox.md)).",
    Place.IMPORTED: "Documentation: but for VMID and flag, a value that is not understood is a warning and left out.",
}


def page() -> str:
    common, operators = (", ".join(f"`{name}`" for name in names) for names in (sorted(COMMON), OPERATORS))
    common = "\n  ".join(textwrap.wrap(common, 118, break_on_hyphens=False))
    parts = [INTRODUCTION.format(common=common, operators=operators)]
    for place in Place:
        parts += [f"## {place if place is Place.HOST else f'`{place}`'}\n"]
        parts += [f"{NOTES[place]}\n"] if place in NOTES else []
        parts += ["| attribute | type | unsaid | |\n|---|---|---|---|", *map(row, FIELDS[place]), ""]
    return "\n".join(parts)


def row(field: Field) -> str:
    name = f"**`{field.name}`**" if field.protects else f"`{field.name}`"
    unit = f", {field.unit}" if field.unit else ""
    needed = "has to be said" if field.missing else f"{field.unsaid}"
    only = {GuestType.QEMU: "VMs: ", GuestType.LXC: "containers: "}.get(field.only, "") if field.only else ""
    return f"| {name} | {field.type.words}{unit} | {needed} | {only}{field.purpose}{details(field)} |"


def details(field: Field) -> str:
    """What a value of several parts may have."""
    known: tuple[str, ...] = getattr(field.type, "known", ())
    if isinstance(field.type, Devices):
        return f" (`{field.type.example}`, …), each with {', '.join(known)}"
    if isinstance(field.type, Features) or known:
        return f": {', '.join(known)}"
    if isinstance(field.type, OneOf) and field.type.words == "word":
        return f": {', '.join(field.type.choices)}"
    return ""


def test_the_reference_is_what_the_table_says() -> None:
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page()


def all_fields() -> Iterator[tuple[Place, Field]]:
    yield from ((place, field) for place, fields in FIELDS.items() for field in fields)


def test_every_field_says_what_it_is_for_and_how_it_is_mended() -> None:
    for place, field in all_fields():
        assert field.purpose, (place, field.name)
        wrong: list[Any] = [object(), [], {}, 1.5]
        if any([*field.type.problems(value)] for value in wrong):
            remedies = [problem.remedy or field.remedy for value in wrong for problem in field.type.problems(value)]
            assert all(remedies), (place, field.name)
    assert len(set(COMMON)) == len(COMMON)
    for place in Place:
        assert not set(fields_of(place)) & set(OPERATORS)


def test_a_deployment_is_asked_for_nothing_else() -> None:
    """Whatever Options takes is a field of a host, or the operator's alone."""
    asked: list[str] = []
    Options.of("web", lambda name: asked.append(name))
    assert set(asked) - set(OPERATORS) == {field.name for field in FIELDS[Place.HOST] if field.deploys}


def test_what_a_deployment_does_unsaid_is_what_the_table_says() -> None:
    usual, fields = Options(), fields_of(Place.HOST)
    for name in ("activation_deadline", "confirm_deadline", "soak", "wave"):
        assert fields[name].unsaid == str(getattr(usual, name))
    assert [fields[name].unsaid for name in ("goal", "build_on", "engine")] == ['"switch"', '"local"', '"guarded"']
    assert (usual.goal, usual.build_on, usual.engine) == (Goal.SWITCH, "local", Engine.GUARDED)
    assert [fields[name].unsaid == str(getattr(usual, name)).lower() for name in ("reboot",)] == [True]
    assert (usual.substitute, fields["substitute_on_destination"].unsaid) == (True, "true")
    for name, words in {"goal": Goal, "engine": Engine}.items():
        kind = fields[name].type
        assert isinstance(kind, OneOf)
        assert kind.choices == tuple(words)


@given(
    st.integers(-3, 300) | st.booleans() | st.floats() | st.none()
    | st.text(max_size=4) | st.from_regex(r"[0-9]{1,4} ?%?", fullmatch=True)
)  # fmt: skip
def test_shares_are_what_a_deployment_understands(value: Any) -> None:
    if value is not None and not any(Share("").problems(value)):
        MaxFail.of(value)
    elif isinstance(value, (int, float)):
        with pytest.raises(Usage):
            MaxFail.of(value)


@pytest.mark.parametrize(
    "address", ["dev", "dev.lan", "a_b.c-d", "10.0.0.5", "::1", "2001:db8::5", "fe80::1%eth0", "xn--bcher-kva.example"]
)
def test_addresses(address: str) -> None:
    assert is_address(address)


@pytest.mark.parametrize(
    "address",
    ["", " ", "bad host", "10.0.0.5:22", "10.77.0.1:8006", "[::1]", "[::1]:8006", "https://dev", "dev/", "10.0.0.256",
     "10.0.0", "1", "-dev", "dev-", "a..b", "dev.", "::g", "1:2", "fe80::1%", "fe80::1%e/0", "dev%eth0", "ᛞ", "١.٢.٣.٤",
     "u@dev", "dev\n", "a" * 64, f"{'a.' * 130}b", "dev;id", "$(id)", ":", "::1%a%b"],
)  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    assert not is_address(address)


def test_the_rest_is_shown_and_decides_nothing() -> None:
    """`extra` is shown: by the overview's template, as what a host is for when it retires, and as what a new host's
    files begin with, before provisioning compares them with the template itself."""
    files = [file for name in ("nixherd", "operations", "facts", "deploys") for file in (ROOT / name).rglob("*.py")]
    assert len(files) > 100
    readers = {str(file.relative_to(ROOT)) for file in files if re.search(r"\.extra\b", file.read_text())}
    assert readers == {"nixherd/trust/rehearsal.py", "nixherd/trust/new/request.py"}

"""The overview: the same bytes for the same fleet, between markers, what people wrote around it kept."""

from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet
from nixherd.trust.enrol import OVERVIEW_BEGIN as BEGIN
from nixherd.trust.enrol import OVERVIEW_END as END
from nixherd.trust.enrol import overview_of, render_overview


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return load_fleet(Path(__file__).parents[3] / "fleet")


@pytest.mark.nix
def test_hosts_guests_ranges_and_fingerprints(fleet: Fleet) -> None:
    text = render_overview(fleet)
    assert "| dev | dev | dev | NixOS |  | 110 (dev) | SHA256:" in text
    assert "| caddy | caddy | cad | Home Manager |  |  | SHA256:" in text
    assert "| 104 | doc1 | imported | proxmox-vm | 8 | 32768 MiB | 250G | no | Main services | nixcache.ablz.au" in text
    assert "| 109 | igp | imported | igpu | 6 | 16384 MiB | passthrough | no |" in text
    assert "| containers | 200 | 299 |" in text
    assert "New guests are cloned from 9002 (debian-13-cloud)." in text
    assert render_overview(fleet) == text
    backwards = replace(fleet, hosts=dict(reversed([*fleet.hosts.items()])), vms=dict(reversed([*fleet.vms.items()])))
    assert render_overview(backwards) == text


@pytest.mark.nix
def test_a_fleet_without_guests(fleet: Fleet) -> None:
    assert "Guests" not in render_overview(replace(fleet, vms={}, ranges=(), template=None))


@pytest.mark.nix
def test_words_of_people_make_no_columns(fleet: Fleet) -> None:
    vm = replace(fleet.vms["dev"], extra={"purpose": "a | b\nc", "services": None})
    assert "| a \\| b c |  |" in render_overview(replace(fleet, vms={"dev": vm}))


@pytest.mark.parametrize(
    ("old", "around"),
    [
        (None, ("# Machines\n\n", "\n")),
        (b"", ("# Machines\n\n", "\n")),
        (b"mine", ("mine\n\n", "\n")),
        (b"mine\n", ("mine\n\n", "\n")),
        (f"above\n{BEGIN}\nold\n{END}\nbelow\n".encode(), ("above\n", "\nbelow\n")),
        (f"{BEGIN}{END}".encode(), ("", "")),
        (b"caf\xe9\n\n", ("caf\udce9\n\n", "\n")),
    ],
)
def test_what_is_around_it_stays(old: bytes | None, around: tuple[str, str]) -> None:
    made = overview_of(old or None, "new\n", "docs/machines.md")
    assert made == f"{around[0]}{BEGIN}\n\nnew\n\n{END}{around[1]}".encode(errors="surrogateescape")
    assert overview_of(made, "new\n", "docs/machines.md") == made


def test_line_ends_are_the_documents() -> None:
    made = overview_of(f"above\r\n{BEGIN}\r\n{END}\r\n".encode(), "a\nb\n", "x")
    assert made.count(b"\n") == made.count(b"\r\n")


@pytest.mark.parametrize("old", [BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_markers_that_are_not_a_pair_are_refused(old: str) -> None:
    with pytest.raises(FleetError, match="docs/x: its two markers are not there once each"):
        overview_of(old.encode(), "new", "docs/x")


@pytest.mark.nix
@pytest.mark.parametrize(
    ("template", "words"), [("{{ nosuch }}", "'nosuch' is undefined"), ("{% if %}", "Expected an expression")]
)
def test_a_template_of_the_fleets_own(fleet: Fleet, tmp_path: Path, template: str, words: str) -> None:
    path, fleet = tmp_path / "own.j2", replace(fleet, path=str(tmp_path))
    path.write_text("{{ hosts | length }} hosts, {{ guest(hosts[0]) }}{{ fingerprint(hosts[0])[:7] }}")
    assert render_overview(fleet, "own.j2") == "7 hosts, SHA256:\n"
    path.write_text(template)
    with pytest.raises(FleetError, match=words):
        render_overview(fleet, "own.j2")
    with pytest.raises(FleetError, match=r"missing: no such template"):
        render_overview(fleet, "missing")

"""A new host's entries and files: whatever was asked for, however the files are written, Nix reads what was meant."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from nixherd.fleet.load import ABSENT, load_fleet
from nixherd.nix.edit import NixText
from nixherd.trust.new import scaffold
from nixherd.trust.new.host import SIZES, Guest, Keys, Kind, NewHost
from nixherd.trust.new.request import usual_keys
from nixherd.trust.new.scaffold import ByHand, guest_entry, host_entry
from tests.conftest import DEFINITIONS_NIX, HOSTS_NIX, MASTER_KEY
from tests.nix_cli import nix_json
from tests.nixherd.generated_nix import Sample, samples
from tests.nixherd.trust.new.hosts import VM, hosts
from tests.properties import examples

pytestmark = pytest.mark.xdist_group("scaffold-entries")  # one worker: what is made is evaluated

REFERENCE = Path(__file__).parents[4] / "fleet"
# By directory: what both files evaluate to, and what kind of value each of the other files is.
_READ = """
  let
    plain = v:
      if builtins.isPath v then { path = toString v; }
      else if builtins.isAttrs v then builtins.mapAttrs (_: plain) v
      else if builtins.isList v then map plain v
      else v;
    below = n: builtins.concatMap (e:
      if (builtins.readDir n).${e} == "directory" then below (n + "/${e}") else [ (n + "/${e}") ]
    ) (builtins.attrNames (builtins.readDir n));
    place = /. + "PLACE";
  in builtins.mapAttrs (n: _: {
    "hosts.nix" = plain (import (place + "/${n}/hosts.nix"));
    "vms/definitions.nix" = import (place + "/${n}/vms/definitions.nix");
    kinds = map (file: builtins.typeOf (import file)) (below (place + "/${n}"));
  }) (builtins.readDir place)
"""
_made: list[NewHost] = []


@examples(60)
@given(hosts())
def test_whatever_is_asked_for_is_written(host: NewHost) -> None:
    made = scaffold.render_files(host)
    assert set(made) == {f"{host.directory}/{name}" for name in scaffold.file_names(host)}
    for name, content in made.items():
        NixText(name, content).mentions(("imports",))  # it parses
        assert content.endswith(b"}\n")
        assert b"\n\n\n" not in content
        assert b" \n" not in content
    _made.append(host)


@pytest.mark.nix
def test_nix_reads_of_the_entries_what_was_meant(tmp_path: Path) -> None:
    """One evaluation of them all, each in a hosts.nix and a definitions.nix of its own; and of their files."""
    if not _made:
        pytest.skip("the property test ran in another worker")
    intended: dict[str, dict[Any, Any]] = {}
    for number, host in enumerate(_made):
        place = tmp_path / f"n{number}"
        (place / "vms").mkdir(parents=True)
        entry = host_entry(HOSTS_NIX.replace("masterKeys =", "unused = 1; masterKeys =").encode(), host, hosts=3)
        found = dict(entry.intended)
        (place / "hosts.nix").write_bytes(entry.content)
        definitions = DEFINITIONS_NIX.encode()
        if host.guest:
            guest = guest_entry(definitions, host, managed=1)
            definitions, found = guest.content, found | dict(guest.intended)
        (place / "vms" / "definitions.nix").write_bytes(definitions)
        for path, content in scaffold.render_files(host).items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(content)
        intended[f"n{number}"] = found
    read = nix_json("eval", "--impure", "--json", "--expr", _READ.replace("PLACE", str(tmp_path)))
    assert len(read) == len(_made)
    for name, wanted in intended.items():
        assert set(read[name].pop("kinds")) <= {"set", "lambda"}
        for leaf, value in wanted.items():
            found = read[name]
            for part in leaf:
                found = found[part]
            meant = {"path": f"{tmp_path}/{name}{value[1]}"} if isinstance(value, tuple) else value
            assert found == meant, (name, leaf)


@examples(60)
@given(samples())
def test_every_other_byte_stays_however_hosts_nix_is_written(sample: Sample) -> None:
    host = replace(VM, id="added-host", keys=Keys((MASTER_KEY,)))
    entry = host_entry(sample.source, host, hosts=1)
    assert NixText("hosts.nix", entry.content).remove(("added-host",)) == sample.source
    if b"\r\n" in sample.source:
        assert b"\n" not in entry.content.replace(b"\r\n", b"")


SHAPES = {
    "let": b'let\n  k = [];\nin {\n  # one\n  dev = {\n    user = "a";\n  };\n}\n',
    "empty": b"{\n}\n",
    "one line": b"{ }\n",
    "no newline": b'{ dev = { user = "a"; }; }',
    "dotted": b'{\n  dev.user = "a"; # here\n}\n',
    "merged": b"let a = { dev = { }; }; in a // { other = { }; }\n",
    "rec": b"rec {\n\tdev = { };\n}\n",
    "crlf": b"{\r\n  dev = { };\r\n}\r\n",
    "latin": "{\n  # \xe4\n  dev = { };\n}\n".encode("latin-1"),
}


@pytest.mark.parametrize(
    "source",
    [
        b'{ dev = { user = "a"; }; }',
        b'{ dev = { user = "a"; };\n  igp = { user = "b"; }; }\n',
        b"{\n  dev = { };}\n",
        b"{ dev = { };\n}\n",
        b"let a = { dev = { }; }; in a // { other = { }; }\n",
        b"{ /* none yet */ }\n",
        b"{\n  # hosts go here\n}\n",
        b"{\n  # hosts\n\n}\n",
        b"{ # hosts\n}\n",
        b"{\n  dev = { };\n  # igp = { };\n\n}\n",
        b"{\n  dev = { }; # dev   \n   }  \n",
        b"{\n  dev = { };   \n}\n",
        b"{\n  dev = { }; /* x */ /* y */\n}\n",
        b"{\n  dev = { }; /* x\n y */\n}\n",
        b"{\r\n  dev = { };\n}\n",
        b"{\n  dev = { };\n}\r\n",
    ],
)
def test_what_comes_and_goes_leaves_no_byte(source: bytes) -> None:
    """The entry alone, and beside a purpose that a line cannot take back: comments, blank lines, line ends stay."""
    for host in (VM, replace(VM, alias="#x", purpose="it's # {")):
        text = NixText("hosts.nix", host_entry(source, host, hosts=source.count(b"= {")).content)
        assert text.mentions(("web", "publicKey"))
        assert text.remove(("web",)) == source


@pytest.mark.nix
def test_shapes_that_people_have(tmp_path: Path) -> None:
    host = replace(VM, keys=Keys((MASTER_KEY,)))
    for name, source in SHAPES.items():
        entry = host_entry(source, host, hosts=source.count(b"dev"))
        (tmp_path / f"{name.replace(' ', '-')}.nix").write_bytes(entry.content)
    plain = f'd: builtins.mapAttrs (n: _: (import (/. + "{tmp_path}/${{n}}")).web.authorizedKeys) d'
    found = nix_json("eval", "--impure", "--json", "--expr", f'({plain}) (builtins.readDir (/. + "{tmp_path}"))')
    assert len(found) == len(SHAPES)
    assert all(each == [MASTER_KEY] for each in found.values())


def test_the_first_host_and_the_first_guest_take_the_place_of_nothing() -> None:
    assert host_entry(b"{\n}\n", VM, hosts=0).intended[("hosts.nix",)] is ABSENT
    first = guest_entry(b"{\n  managed = { };\n}\n", VM, managed=0)
    assert first.intended[("vms/definitions.nix", "managed")] is ABSENT
    none = guest_entry(b"{\n  proxmox = { };\n}\n", VM, managed=None)
    assert b"  managed = {\n    web = {\n      vmid = 111;\n" in none.content
    assert ("vms/definitions.nix", "managed") not in none.intended


@pytest.mark.parametrize(
    ("source", "line"),
    [(b"import ./all.nix", "add"), (b"builtins.mapAttrs (n: v: v) { }", "add"), (b"{ a = ; }", ":1:")],
)
def test_what_cannot_be_edited_is_said_with_the_lines_to_add(source: bytes, line: str) -> None:
    with pytest.raises(ByHand, match=line) as caught:
        host_entry(source, VM, hosts=1)
    assert "\n" not in str(caught.value)
    assert caught.value.lines[0] == "web = {"
    assert '  publicKey = "placeholder";' in caught.value.lines
    managed = b"{ managed = builtins.listToAttrs [ ]; }"
    with pytest.raises(ByHand) as guest:
        guest_entry(managed, VM, managed=1)
    assert guest.value.place == "vms/definitions.nix: managed"


def test_the_keys_are_named_as_most_hosts_name_them(make_fleet: Any) -> None:
    fleet = load_fleet(make_fleet())
    assert usual_keys(fleet, HOSTS_NIX.encode()) == Keys((MASTER_KEY,), "masterKeys")
    literal = HOSTS_NIX.replace("= masterKeys;", f'= [ "{MASTER_KEY}" ];')
    assert usual_keys(fleet, literal.encode()) == Keys((MASTER_KEY,))
    assert usual_keys(fleet, literal.replace(f'= [ "{MASTER_KEY}" ];', "= masterKeys;", 1).encode(), "caddy") == Keys(
        (MASTER_KEY,)
    )


def test_the_templates_are_those_of_the_reference() -> None:
    """dev is what a small VM is made like: where one of them is better, so be both."""
    disko = scaffold.render_files(replace(VM, guest=Guest(SIZES["small"], 111, 2, 2048, "16G")))["hosts/web/disko.nix"]
    assert disko.split(b"\n", 1)[1] == (REFERENCE / "hosts/dev/disko.nix").read_bytes().split(b"\n", 1)[1]
    hardware = scaffold.render_files(VM)["hosts/web/hardware-configuration.nix"]
    assert hardware == (REFERENCE / "hosts/dev/hardware-configuration.nix").read_bytes()


def test_no_file_without_what_it_is_for() -> None:
    assert scaffold.file_names(replace(VM, kind=Kind.HOME, guest=None)) == ("home.nix",)
    assert "disko.nix" not in scaffold.file_names(replace(VM, kind=Kind.CONTAINER))
    assert json.dumps(scaffold.file_names(replace(VM, home=False))).count("home") == 0

"""The fleet that this was made for, and where each name is said."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nixherd.base.errors import FleetInvalid
from nixherd.cli.main import run
from nixherd.fleet.load import load_fleet
from nixherd.fleet.near_names import judge
from nixherd.fleet.schema import Place
from tests.fuzz.names import fleet
from tests.judged import find
from tests.security.names.conftest import ROOT, MakeFleet, on_guest, on_host

# The fleet that this was made for

MISSION_HOST = ("configurationFile", "homeFile", "user", "homeDirectory", "hostname", "sshAlias", "sshKeyName",
                "publicKey", "authorizedKeys")  # fmt: skip
MISSION_GUESTS = {
    "imported": ("vmid", "hostname", "sshAlias", "status", "specs", "purpose", "services", "notes", "readonly",
                 "hardware", "monitoring"),
    "managed": ("vmid", "cores", "memory", "disk", "storage", "nixosConfig", "purpose", "services"),
}  # fmt: skip
MISSION_REST = {
    Place.BESIDE: (),
    Place.PROXMOX: ("host", "node", "user", "defaultStorage"),
    Place.TEMPLATE: ("vmid", "name", "description", "specs", "notes"),
    Place.RANGE: ("start", "end", "description"),
    Place.TOP: ("proxmox", "imported", "managed", "template", "vmidRanges"),
}


def test_the_names_of_the_fleet_that_this_was_made_for_are_silent() -> None:
    """The attributes of abl030/nixosconfig at f51256da."""
    names = {Place.HOST: MISSION_HOST, Place.IMPORTED: MISSION_GUESTS["imported"],
             Place.MANAGED: MISSION_GUESTS["managed"], **MISSION_REST}  # fmt: skip
    assert set(names) == set(Place)
    assert [(place, name) for place, each in names.items() for name in each if judge(place, name, True)] == []
    files = fleet()
    files["definitions"]["imported"]["doc"] |= {
        name: ["free"] for name in ("purpose", "services", "notes", "monitoring")
    }
    files["definitions"]["imported"]["doc"] |= {"specs": {"disk": "passthrough"}, "hardware": {"notes": []}}
    assert find(files["hosts"], files["definitions"]) == []


@pytest.mark.nix
def test_the_reference_fleet_is_sound() -> None:
    assert load_fleet(ROOT / "fleet").warnings == ()


# Where it is said

WARNING = "warning: hosts.nix: dev.canery: is obeyed by nobody, and is close to canary"


@pytest.mark.parametrize(
    ("says", "line"),
    [
        ("sshKeyName = x: x;", "dev.sshKeyName: is a function, not a string"),
        ("initialHashedPassword = DRV;", "dev.initialHashedPassword: is a derivation, not a string"),
        (
            "healthChecks.a.command = DRV;",
            "dev.healthChecks.a.command: '<derivation>' is not text; write a string in quotes",
        ),
        ("healthChecks.a.command = ./hosts.nix;", "hosts.nix' is not text; write a string in quotes that is not empty"),
        ("tags = [ (x: x) ];", "dev.tags: is not a list of tags"),
        ("wave = x: x;", "dev.wave: is a function, not an integer"),
    ],
)
def test_what_json_has_no_word_for_is_no_string(make_fleet: MakeFleet, says: str, line: str) -> None:
    """It was obeyed as the word for it: a password, a key's name, a command."""
    says = says.replace("DRV", 'derivation { name = "a"; system = "b"; builder = "c"; }')
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(make_fleet(on_host(says)))
    assert line in str(caught.value)


def test_check_fails_for_it(warned: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--only", "definitions", "--table"]) == 1
    out, err = capfd.readouterr()
    file, _, rest = WARNING.rstrip().partition(": dev.")
    assert re.search(rf"^  {re.escape(file)}:\d+: dev\.{re.escape(rest)}", out, re.MULTILINE)
    assert (out.count("canery"), err) == (1, "")
    assert run(["check", "--only", "definitions", "--json"]) == 1
    document = json.loads(capfd.readouterr().out)
    [row] = document["findings"]
    assert (document["fleet"], document["ok"]) == (str(warned), False)
    assert (row["severity"], row["file"], row["attribute"]) == ("warning", "hosts.nix", "dev.canery")
    assert "canery" in (warned / "hosts.nix").read_text().splitlines()[row["line"] - 1]
    assert WARNING.endswith(row["what"])
    assert row["remedy"].startswith("write canary")


def test_check_says_errors_and_warnings(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET", str(make_fleet(on_host("canery = true;"), on_guest("readOnly = true;"))))
    assert run(["check", "--only", "definitions", "--json"]) == 1
    rows = json.loads(capfd.readouterr().out)["findings"]
    assert [row["severity"] for row in rows] == ["error", "warning"]


def test_check_says_what_cannot_be_evaluated(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET", str(make_fleet(('sshAlias = "cad";', "sshAlias = cad;"))))
    assert run(["check", "--only", "definitions", "--json"]) == 1
    [row] = json.loads(capfd.readouterr().out)["findings"]
    assert (row["severity"], row["file"], row["line"], row["column"]) == ("error", "hosts.nix", 29, 16)
    assert row["what"] == "undefined variable 'cad'"


def test_check_says_what_is_wrong_where_nothing_is_to_be_said_of_a_remedy(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    edit = ('sshAlias = "cad";', 'sshAlias = abort "builtins.none: so it is";')
    monkeypatch.setenv("FLEET", str(make_fleet(edit)))
    assert run(["check", "--only", "definitions", "--json"]) == 1
    [row] = json.loads(capfd.readouterr().out)["findings"]
    assert row["what"].endswith("builtins.none: so it is")


def test_check_is_content_with_a_sound_fleet(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET", str(make_fleet()))
    assert run(["check", "--only", "definitions", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["findings"] == []


def test_a_command_says_it_once_on_stderr(warned: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(["vm", "status", "nobody"])
    out, err = capfd.readouterr()
    assert (out, err.count("canery")) == ("", 1)
    assert err.startswith(WARNING)


def test_pyinfra_says_it_once(warned: Path) -> None:
    pyinfra = Path(sys.executable).with_name("pyinfra")
    done = subprocess.run(
        [pyinfra, "inventory.py", "debug-inventory", "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.count("canery") == 1
    assert WARNING in done.stderr
    assert "canery" not in done.stdout


def test_a_report_has_it(warned: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a deployment whose one host cannot be reached; what its hosts' processes say goes to its log."""
    run(["deploy", "proxmox-vm", "--allow-dirty", "--json"])
    out, err = capfd.readouterr()
    [warning] = json.loads(out)["warnings"]
    assert warning.startswith(WARNING)
    assert err.count("canery") == 1

"""Hosts that are a home alone, on a system that somebody else keeps."""

from pathlib import Path
from typing import Any

import pytest

from tests.nixherd.trust.secrets.repositories import administered, git

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return administered(monkeypatch, tmp_path)


FLAKE = """{
  outputs = _: {
    homeConfigurations.igp.config = {
      home.username = "ann";
      sops.age.sshKeyPaths = [ "/home/ann/.ssh/id_ed25519" ];
      sops.secrets.wifi = {
        name = "wifi";
        path = "/home/ann/wifi";
        sopsFile = ./secrets + "/FILE";
        format = "yaml";
        key = "wifi";
        mode = "0400";
      };
    };
  };
}
"""


def home(fleet: Path, file: str, *, stays_nixos: bool = False) -> None:
    (fleet / "flake.nix").write_text(FLAKE.replace("FILE", file))
    if not stays_nixos:
        hosts = fleet / "hosts.nix"
        hosts.write_text(hosts.read_text().replace("configurationFile = ./hosts/igp", "homeFile = ./hosts/igp"))
    git(fleet, "commit", "-qam", "igp is a home")


def test_a_home_alone_joins_no_rule_and_its_files_are_looked_at(secrets: Any, fleet: Path) -> None:
    home(fleet, "other.yaml")
    ended = secrets("add-host", "igp", "--json")
    assert (ended.status, ended.json["steps"]) == (0, []), ended.err
    notes = ended.json["notes"]
    assert any(note.startswith("secrets/other.yaml, which ann's home declares: no rule is for it") for note in notes)


@pytest.mark.parametrize("others", ["", "nixosConfigurations.doc1.config = { };\n    "])
def test_a_home_that_hosts_nix_takes_for_nixos(secrets: Any, fleet: Path, others: str) -> None:
    home(fleet, "other.yaml", stays_nixos=True)
    flake = fleet / "flake.nix"
    flake.write_text(flake.read_text().replace("homeConfigurations", f"{others}homeConfigurations"))
    git(fleet, "commit", "-qam", "others", "--allow-empty")
    ended = secrets("add-host", "igp")
    assert ended.status == 2
    what = "nixosConfigurations.igp does not exist, and homeConfigurations.igp does; take its configurationFile out of"
    assert f"igp: which secrets it declares is not known: {what} its entry, as a home alone has none" in ended.err
    ended = secrets("add-host", "igp", "--rule", "3", "--dry-run", "--json")
    assert ended.status == 0, ended.err
    notes = ended.json["notes"]
    assert any(note.startswith("secrets/other.yaml, which ann's home declares: no rule is for it") for note in notes)


def test_nixos_that_hosts_nix_takes_for_a_home(secrets: Any, fleet: Path) -> None:
    hosts = fleet / "hosts.nix"
    hosts.write_text(hosts.read_text().replace("configurationFile = ./hosts/igp", "homeFile = ./hosts/igp"))
    git(fleet, "commit", "-qam", "igp is a home")
    flake = (fleet / "flake.nix").read_text().replace("import host.configurationFile", "1")
    (fleet / "flake.nix").write_text(flake)
    git(fleet, "commit", "-qam", "flake")
    ended = secrets("add-host", "igp")
    assert ended.status == 2
    assert (
        "homeConfigurations.igp does not exist, and nixosConfigurations.igp does; give it its configurationFile in"
        in (ended.err)
    )

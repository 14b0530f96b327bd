"""What a derivation's text holds of the fleet's tree, and which line has put it there."""

from pathlib import Path

import pytest

from nixherd.gate.sources import Closures, Commit, Held, Lines

TREE = "0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d"
REVISION = "4f2c0d9b7e6a000000000000000000000000c0de"
METADATA = {"path": f"/nix/store/{TREE}-source", "revision": REVISION, "lastModified": 1796000000, "locked": {}}

FILES = {
    "flake.nix": """{
  outputs = {self, nixpkgs, ...} @ inputs: let
    fleetLib = import ./nix/lib.nix {inherit inputs self;};
  in {};
}""",
    "nix/lib.nix": """{inputs, self, system}: {
  specialArgs = {flake-root = self.outPath;};
}""",
    "hosts/a/configuration.nix": """{flake-root, inputs, ...}: {
  imports = [./disko.nix ../b/shared.nix];
  # "${flake-root}/scripts" is what one does not write
  environment.etc.tools.source = "${flake-root}/scripts";
  environment.etc.motd.text = builtins.readFile ./motd;
  environment.etc.issue.source = toString ./issue;
  environment.variables.ISSUE = ./issue; # as it should be
  system.nixos.label = inputs.self.shortRev or "dirty";
  nix.registry.fleet.flake = inputs.self;
}""",
}


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Lines(tmp_path)


@pytest.mark.parametrize(
    ("what", "below", "places"),
    [
        ("the fleet's own tree", "/scripts", ["hosts/a/configuration.nix:4"]),
        ("the fleet's own tree", "/scripts/deep/x.sh", ["hosts/a/configuration.nix:4"]),
        ("the fleet's own tree", "/hosts/a/issue", ["hosts/a/configuration.nix:6"]),
        ("the fleet's own tree", "", ["hosts/a/configuration.nix:4", "hosts/a/configuration.nix:9"]),
        ("shortRev", "", ["hosts/a/configuration.nix:8"]),
        ("narHash", "", ["hosts/a/configuration.nix:8"]),  # the only one that names anything of the kind
    ],
)
def test_the_line_that_has_put_it_there(lines: Lines, what: str, below: str, places: list[str]) -> None:
    assert lines.that_may_have(Held(what, below, "x")) == places


def test_a_fleet_that_names_none_has_no_such_line(tmp_path: Path) -> None:
    (tmp_path / "flake.nix").write_text("{ outputs = {self, ...}: {}; }")
    assert Lines(tmp_path).that_may_have(Held("rev", "", "x")) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f'("text","/nix/store/{TREE}-source/scripts:x")', [Held("the fleet's own tree", "/scripts", "d")]),
        (f'([],["/nix/store/{TREE}-source"],"x")', [Held("the fleet's own tree", "", "d")]),
        (f"label={REVISION[:7]}.dirty", [Held("shortRev", "", "d")]),
        (f"rev {REVISION}", [Held("rev", "", "d")]),
        (f"/nix/store/{'1' + TREE[1:]}-source and {REVISION[:7]}f and {REVISION[:8]}", []),
        ("at 1796000000", [Held("lastModified", "", "d")]),
        ("at 20261130005320.", [Held("lastModifiedDate", "", "d")]),
    ],
)
def test_what_a_derivation_holds(text: str, found: list[Held]) -> None:
    assert list(Commit.of(METADATA).held_by("d", text)) == found


def test_a_fleet_below_its_repositorys_top() -> None:
    commit = Commit.of({**METADATA, "locked": {"dir": "infra/fleet"}})
    [held] = commit.held_by("d", f"/nix/store/{TREE}-source/infra/fleet/scripts/x")
    assert held.below == "/scripts/x"
    [held] = commit.held_by("d", f"/nix/store/{TREE}-source/infra/fleet ")
    assert held.below == ""


def test_every_derivation_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"/nix/store/{char * 32}-{char}.drv" for char in "abc"]
    texts = {
        names[0]: f'"{names[1]}" "{names[2]}"',
        names[1]: f'"{names[2]}"',
        names[2]: f"x/nix/store/{TREE}-source/a",
    }
    read = list[str]()

    def text(path: Path, **options: object) -> str:
        read.append(str(path))
        return texts[str(path)]

    monkeypatch.setattr(Path, "read_text", text)
    closures = Closures(Commit.of(METADATA))
    assert closures.of(names[0]) == closures.of(names[1]) == [Held("the fleet's own tree", "/a", "c")]
    assert sorted(read) == names

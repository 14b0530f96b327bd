"""Where a fleet's files name a host: what is a reference, and what only looks like one."""

from pathlib import Path

import pytest

from nixherd.trust.mentions import imported, mentions_of

REFERENCE = Path(__file__).parents[3] / "fleet"


def lines(path: str, text: str, *names: str) -> list[int]:
    return [each.line for each in mentions_of({path: text.encode()}, names or ("dev",))]


@pytest.mark.parametrize(
    "text",
    [
        "allHosts.dev.user",
        '{ x = hosts."dev".publicKey; }',
        '{ x = nixosConfigurations.${"dev"}; }',
        "{ dev = 1; }",
        "{ inherit (allHosts) dev; }",
        '{ h = [ "dev" ]; }',
        '{ builder = "ssh://dev x86_64-linux"; }',
        '{ key = "ssh-ed25519 AAAA root@dev"; }',
        "{ imports = [ ./hosts/dev/home.nix ]; }",
        '{ x = "${self}/hosts/dev/x"; }',
        "{ t = ''\n  ssh dev.lan true\n''; }",
    ],
)
def test_what_names_it_in_nix(text: str) -> None:
    assert len(lines("a.nix", text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "# dev is a machine\n{ }",
        '{ disk = "/dev/sda"; }',
        "{ dev2 = 1; x = a.dev-tools; }",
        "let dev = 1; in dev + dev",
        '{ x = "development"; y = "my-dev"; }',
        "{ x = ./dev.nix; }",
    ],
)
def test_what_only_looks_like_it(text: str) -> None:
    assert lines("a.nix", text.replace("let dev = 1; in ", "")) == []


def test_other_texts_are_read_by_words() -> None:
    text = "run: nix build .#nixosConfigurations.dev.x\nof: /dev/null\nssh dev\nrsync root@dev:/x\ndev2 my.dev\n#dev\n"
    assert lines(".github/workflows/x.yml", text) == [1, 3, 4, 6]
    assert lines("known_hosts", "dev,10.0.0.5 ssh-ed25519 AAAA\n[dev]:22 x\n") == [1, 2]
    assert lines("binary", "dev\0\n") == []
    [found] = mentions_of({"long.yml": (f"{'a ' * 90}dev{' b' * 90}").encode()}, ["dev"])
    assert "dev" in found.text
    assert len(found.text) == 82


def test_what_takes_a_file_of_it() -> None:
    texts = {
        "flake.nix": b"{\n  a = ./hosts/dev;\n  b = ./hosts/${name};\n  c = ./hosts/dev2/x.nix;\n}\n",
        "hosts/web/a.nix": b'{\n  x = ../dev/${y};\n  z = "${r}/hosts/dev/x";\n  w = ../dev.nix;\n  v = ../..;\n}\n',
        "hosts/dev.md": b"see hosts/dev/a.nix",
    }
    found = imported(texts, ["hosts/dev"])
    assert [(each.path, each.line) for each in found] == [
        ("flake.nix", 2),
        ("hosts/web/a.nix", 2),
        ("hosts/web/a.nix", 3),
    ]
    assert str(found[0]) == "flake.nix:2: a = ./hosts/dev;"


def test_of_the_reference_fleet_nothing_takes_what_is_devs() -> None:
    texts = {str(path.relative_to(REFERENCE)): path.read_bytes() for path in REFERENCE.rglob("*") if path.is_file()}
    rest = {path: text for path, text in texts.items() if not path.startswith("hosts/dev/") and path != "hosts.nix"}
    assert imported(rest, ["hosts/dev"]) == []
    mentions = [each.path for each in mentions_of(rest, ["dev"])]
    assert [path for path in mentions if path.endswith(".nix")] == ["vms/definitions.nix"] * 2

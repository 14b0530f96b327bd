"""What a command reports as seen is what was read back: a difference is planted at each such line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.ssh_keys import generate_ed25519
from nixherd.cli import new, publish, token
from nixherd.cli.main import run
from nixherd.proxmox.token import Server, Token
from nixherd.trust.new.scaffold import scaffold
from tests.nixherd.cli.conftest import planted_hook
from tests.nixherd.cli.new.conftest import Fleet as NewFleet
from tests.nixherd.cli.new.conftest import evaluated as evaluated_host
from tests.nixherd.cli.new.conftest import fleet as fleet_for_new  # noqa: F401  (fixture)
from tests.nixherd.cli.test_cli_provisioning import KEY, FakePyinfra, Note, begun
from tests.nixherd.cli.test_cli_publishing import fleet as published_fleet  # noqa: F401  (fixture)
from tests.nixherd.cli.test_cli_publishing import key  # noqa: F401  (fixture)

OTHER = "/nix/store/1v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-nixos-system-dev-26.05"


def verified(**about: Any) -> Note:
    return "found", "dev", {"verified": {"address": "192.0.2.9", "system": OTHER, **about}}


@pytest.mark.parametrize(
    ("notes", "pins", "readonly", "said"),
    [
        ([verified()], True, False, f"at 192.0.2.9 runs {OTHER}; hosts.nix pins its key; not readonly"),
        ([verified(host_key=KEY)], True, True, f"at 192.0.2.9 runs {OTHER}; hosts.nix pins its key; readonly"),
        ([verified(host_key=generate_ed25519("x").public)], True, False,
         "failed: hosts.nix pins another key of dev than the machine showed"),
        ([verified()], False, False, "failed: hosts.nix pins no key of dev"),
        ([], True, False, "failed: what runs there was not read back"),
    ],
    ids=["another system", "readonly now", "another key", "no key", "not read back"],
)  # fmt: skip
def test_a_provisioned_machine(
    ask: Any,
    fleet: Path,
    notes: list[Note],
    pins: bool,
    readonly: bool,
    said: str,
) -> None:
    definitions = fleet / "vms" / "definitions.nix"

    class Fake(FakePyinfra):
        def __call__(self, argv: Any, **options: Any) -> Any:
            if readonly:
                text = definitions.read_text()
                definitions.write_text(text.replace("vmid = 110;", "vmid = 110; readonly = true;"))
            return super().__call__(argv, **options)

    ended = ask("provision", "dev", "--table", by=Fake(fleet, begun("dev"), *notes, pins=pins))
    assert ended.out.splitlines()[0] == f"dev (vm 110): {'' if said.startswith('failed') else 'in service: '}{said}"


@pytest.mark.nix
@pytest.mark.parametrize("planted", ["another pointer", "no pointer"])
def test_a_published_system(
    published_fleet: Path,  # noqa: F811
    key: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    planted: str,
) -> None:
    cache = tmp_path / "cache"
    assert run(["publish", str(cache), "a", "--key-file", key, "--json"]) == 0
    [system] = json.loads(capsys.readouterr().out)["published"].values()
    file = cache / "systems" / "a"
    assert system in file.read_text()
    before = file.read_text()

    def write(path: Path, text: str, **_: Any) -> None:
        path.write_text(before if planted == "another pointer" else "")

    monkeypatch.setattr(publish, "write_whole", write)
    assert run(["publish", str(cache), "a", "--key-file", key, "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["published"] == {}
    assert f"a: not published: {file}: does not hold what was written to it" in err


@pytest.mark.nix
@pytest.mark.parametrize("planted", [False, True])
def test_what_a_new_host_evaluates_to(
    fleet_for_new: NewFleet,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    planted: bool,
) -> None:
    def evaluated(*values: Any, **options: Any) -> Any:
        system = evaluated_host("web", OTHER)
        return replace(scaffold(*values, **options), evaluated=system)

    monkeypatch.setattr(new, "scaffold", evaluated)
    if planted:
        planted_hook(fleet_for_new.root, "echo '# formatted' >> hosts/web/configuration.nix")
    done = fleet_for_new.new("web", "--vmid", "150", "--yes", "--commit", "--table")
    assert done.status == 0, done.err
    unknown = "hosts/web/configuration.nix: a git hook changed it; whether Nix makes a system of it is not known"
    assert (f"web: evaluates to {OTHER}" in done.out.splitlines()) is not planted
    assert (unknown in done.err.splitlines()) is planted


def test_a_token_and_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Token("a@pve", "x", "0" * 8 + "-0000" * 3 + "-" + "0" * 12, Server("192.0.2.99", 8006, "cd" * 32))
    line = tmp_path / "line"
    line.write_text(f"nixherd@pve!lab={other.secret}\n")

    def write(path: Path, text: str) -> None:
        path.write_text(other.to_toml())
        path.chmod(0o600)

    monkeypatch.setattr(token, "write_whole", write)
    file = tmp_path / "token"
    with line.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        words = ["--endpoint", "192.0.2.12", "--fingerprint", "ab" * 32]
        assert run(["--token-file", str(file), "token", "add", *words]) == 0
    assert capsys.readouterr().out.startswith(
        f"{file}: a@pve!x for 192.0.2.99:8006, known by its certificate's SHA-256 CD"
    )

"""What a command reports as seen is what was read back: a difference is planted at each such line."""

import json
from pathlib import Path
from typing import Any

import pytest

from nixherd.cli import publish as publishing
from nixherd.cli.main import run
from nixherd.ssh.keys import generate_ed25519
from tests.nixherd.cli.test_cli_provisioning import KEY, FakePyinfra, Note, ask, begun  # noqa: F401  (fixture)
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
    ask: Any,  # noqa: F811
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
    assert ended.out == f"dev (vm 110): {'' if said.startswith('failed') else 'in service: '}{said}\n"


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

    monkeypatch.setattr(publishing, "write_whole", write)
    assert run(["publish", str(cache), "a", "--key-file", key, "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["published"] == {}
    assert f"a: not published: {file}: does not hold what was written to it" in err

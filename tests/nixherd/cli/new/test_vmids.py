"""`nixherd new` with a hypervisor: VMIDs, and what would stop the provisioning."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.cli.main import run
from nixherd.fleet.load import load_fleet
from nixherd.trust.new import scaffold
from tests.conftest import DEFINITIONS_NIX
from tests.nixherd.cli.conftest import Ended
from tests.nixherd.cli.new.conftest import evaluated
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.trust.new.hosts import VM
from tests.nixherd.trust.secrets.repositories import nobodys

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("cli-new")]


@pytest.fixture
def online(
    make_fleet: Callable[..., Path],
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Callable[..., Ended]:
    nobodys(monkeypatch, tmp_path)
    there = f'host = "127.0.0.1"; port = {emulator.port}; fingerprint = "{emulator.fingerprint}"'
    root = make_fleet(definitions=DEFINITIONS_NIX.replace('host = "127.0.0.1"', there))
    token = tmp_path / "token"
    token.write_text(emulator.token.to_toml())
    token.chmod(0o600)

    def call(*words: str, token: Path = token) -> Ended:
        capfd.readouterr()
        more = ("--state-version", "25.11", "--no-eval")
        status = run(["--fleet", str(root), "--token-file", str(token), "new", *words, *more])
        return Ended(status, *capfd.readouterr())

    return call


@pytest.mark.xdist_group("emulator")
def test_the_hypervisor_knows_who_has_which_vmid(online: Callable[..., Ended], emulator: Emulator) -> None:
    taken = {row.vmid for row in emulator.root().resources()}
    free = next(vmid for vmid in range(100, 200) if vmid not in taken | {104, 110})
    planned = online("web", "--dry-run", "--json")
    assert planned.status == 0, planned.err
    found = planned.json
    assert (found["vmid"], found["vmid_free"], found["firmware"]) == (free, True, "ovmf")
    assert not any("unknown" in line for line in found["findings"])
    somebody = next(vmid for vmid in taken if 100 <= vmid < 200 and vmid not in (104, 110))
    refused = online("web", "--vmid", str(somebody), "--dry-run")
    assert refused.status == 2
    assert re.match(rf"--vmid {somebody}: .* has it; take another one", refused.err)
    offline = online("web", "--offline", "--dry-run", "--json")
    assert offline.json["vmid_free"] is None
    assert emulator.changes() == []


def test_a_hypervisor_that_does_not_answer_is_no_reason_to_guess(
    online: Callable[..., Ended], emulator: Emulator, tmp_path: Path
) -> None:
    other = tmp_path / "other-token"
    other.write_text(emulator.token.to_toml().replace("=", "= #", 1))
    other.chmod(0o600)
    done = online("web", "--dry-run", token=other)
    assert done.status != 0
    assert "--offline does without it" in done.err


@pytest.mark.xdist_group("emulator")
def test_what_would_keep_it_from_being_provisioned_is_said(
    make_fleet: Callable[..., Path], emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the judgement that provisioning begins with; what could not be asked is unknown."""
    nobodys(monkeypatch, tmp_path)
    there = f'host = "127.0.0.1"; port = {emulator.port}; fingerprint = "{emulator.fingerprint}"'
    named = DEFINITIONS_NIX.replace('host = "127.0.0.1"', there).replace("vmid = 110;", 'vmid = 110; pool = "nixherd";')
    fleet = load_fleet(make_fleet(definitions=named))
    token = tmp_path / "token"
    token.write_text(emulator.token.to_toml())
    token.chmod(0o600)
    system = evaluated("dev", "/nix/store/x")
    host = replace(VM, id="dev")
    assert scaffold.obstacles_of(token, fleet, host, system) == ()
    [line] = scaffold.obstacles_of(token, fleet, host, replace(system, boot_loader="grub"))
    assert line.startswith("dev: provisioning would be refused now: dev: its configuration installs grub")
    [line] = scaffold.obstacles_of(tmp_path / "none", fleet, host, system)
    assert line.startswith("dev: whether it could be provisioned now is unknown: token file")
    assert emulator.changes() == []

"""Where a host is to have secrets and no place for them exists, it is not enrolled until that is said to be right."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.fleet.load import load_fleet
from nixherd.nix.declared import Declared, DeclaredSecret
from nixherd.operations import proxmox, sops, trust
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.trust.secrets.repositories import contents, git, identity_of, nobodys, repository
from tests.runs import Outcome, Said, connected, evaluates_to, perform
from tests.shared import Shared

pytestmark = pytest.mark.xdist_group("emulator")
Rows = Callable[..., Outcome]
SECRETS = tuple(DeclaredSecret(name, "", "secrets/dev.yaml", "yaml", name) for name in ("a", "b", "c", "d"))


@pytest.fixture
def fleet(shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet without a .sops.yaml."""
    nobodys(monkeypatch, tmp_path)
    place = repository(tmp_path / "fleet")
    git(place, "rm", "-rq", "secrets")
    git(place, "commit", "-qm", "none")
    hosts = {name: replace(host, user="root") for name, host in load_fleet(place).hosts.items()}
    shared.fleet = replace(shared.fleet, path=str(place), hosts={**hosts, "metal": shared.fleet.hosts["metal"]})
    return place


@pytest.fixture
def row(shared: Shared, fleet: Path, said: Said) -> Rows:
    def one(operation: Any, declared: Declared, **data: Any) -> Outcome:
        evaluates_to(shared, declared=declared)
        host = connected(shared, age_identity=str(identity_of(fleet.parent)), **data)
        host.state.activate_host(host)
        return perform(host, said, operation)

    return one


def agenix(fleet: Path) -> None:
    (fleet / "secrets").mkdir()
    (fleet / "secrets" / "secrets.nix").write_text("{ }\n")
    (fleet / "secrets" / "a.age").write_text("age-encryption.org/v1\n")


@pytest.mark.parametrize(
    ("declared", "make", "words"),
    [
        (Declared("dev", SECRETS), None, "its configuration declares 4 secrets (a, b, c and 1 more)"),
        (Declared("dev", SECRETS[:1]), None, "its configuration declares 1 secret (a)"),
        (Declared("dev", others=("agenix",)), None, "its configuration has agenix"),
        (Declared("dev"), agenix, "the fleet has agenix (secrets/secrets.nix, 1 .age file)"),
        (Declared("dev", problem="nosuch"), None, "what its configuration declares is not known: nosuch"),
    ],
)
def test_it_is_refused_and_what_there_is_is_named(
    row: Rows, fleet: Path, declared: Declared, make: Callable[[Path], None] | None, words: str
) -> None:
    if make is not None:
        make(fleet)
    before = contents(fleet)
    found = row(trust.enroll, declared)
    assert (found.changed, found.failed) == (False, True)
    [line] = [line for line in found.said if "secrets=none" in line]
    assert line.startswith(
        f"dev: {words}; and no .sops.yaml for sops exists; make one (`nixherd secrets init`), or say secrets=none"
    )
    assert contents(fleet) == before
    done = row(trust.enroll, declared, secrets="none")
    assert (done.changed, done.failed) == (True, False), done.said
    assert load_fleet(fleet).hosts["dev"].public_key
    assert git(fleet, "show", "--format=", "--name-only").split() == ["hosts.nix"]


def test_a_host_without_secrets_needs_no_place_for_them(row: Rows, fleet: Path) -> None:
    assert row(trust.enroll, Declared("dev")).changed


def test_a_guest_is_not_made_either(row: Rows, emulator: Emulator) -> None:
    found = row(proxmox.validate, Declared("dev", SECRETS))
    assert found.failed
    assert any("declares 4 secrets" in line and "secrets=none" in line for line in found.said)
    assert emulator.changes() == []


def test_deploying_and_proving_is_not_refused(row: Rows) -> None:
    assert not row(sops.decrypted, Declared("dev")).failed

"""Enrolment as rows of a deploy: planned, done, then nothing; which key counts; when the private half goes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.ssh_keys import KeyPair, generate_ed25519
from nixherd.fleet.load import load_fleet
from nixherd.operations import age, sops, trust
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import (
    BEFORE,
    WITH_DEV,
    admission,
    git,
    identity_of,
    nobodys,
    recipients,
    repository,
)
from tests.runs import DESCRIBED, Outcome, Said, connected, evaluates_to, perform, vm
from tests.shared import Shared
from tests.sshd import Sshd

pytestmark = pytest.mark.xdist_group("emulator")

NIXOS = "ID=nixos"
Rows = Callable[..., Outcome]


@pytest.fixture
def fleet(shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The session's fleet lies in a repository, with secrets."""
    nobodys(monkeypatch, tmp_path)
    place = repository(tmp_path / "fleet")
    found = load_fleet(place)
    hosts = {name: replace(host, user="root") for name, host in found.hosts.items()}
    shared.fleet = replace(shared.fleet, path=str(place), hosts={**hosts, "metal": shared.fleet.hosts["metal"]})
    evaluates_to(shared, declared=admission().declared)
    return place


@pytest.fixture
def row(shared: Shared, fleet: Path, said: Said) -> Rows:
    """Performs an operation on `dev` in a run of its own, machine or not."""

    def one(operation: Any, *, plan: bool = False, data: dict[str, Any] | None = None, **arguments: Any) -> Outcome:
        own = {"age_identity": str(identity_of(fleet.parent)), **(data or {})}
        host = connected(shared, **own)
        host.state.activate_host(host)
        return perform(host, said, operation, plan=plan, **arguments)

    return one


def test_before_the_machine_exists(row: Rows, fleet: Path, shared: Shared, emulator: Emulator) -> None:
    planned = row(trust.enroll, plan=True)
    assert planned.changed
    summary = next(line for line in planned.said if ".sops.yaml" in line)
    assert "dev joins rule 1 (^(common|settings|sub/)), rule 2 (^dev\\.yaml$); hosts.nix: dev.publicKey pins" in summary
    assert recipients(fleet) == BEFORE
    assert shared.keys.held("dev") is None

    done = row(trust.enroll)
    assert (done.changed, done.failed) == (True, False), done.said
    assert summary in done.said
    pair = shared.keys.held("dev")
    assert pair is not None
    assert load_fleet(fleet).hosts["dev"].public_key == pair.public
    assert git(fleet, "log", "--format=%s").split("\n")[0] == "fleet: dev joins"
    assert not row(trust.enroll).changed
    assert emulator.changes() == []


@pytest.mark.parametrize("plan", [True, False])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("hosts.nix", "fleet/hosts.nix: has changes that are not committed; commit or undo them first"),
        (".git", "fleet: is not in a git repository; `git init` one, or say --no-commit (data commit=False)"),
    ],
)
def test_what_could_not_be_committed_is_no_plan_either(
    row: Rows, fleet: Path, shared: Shared, plan: bool, change: str, why: str
) -> None:
    if change == ".git":
        (fleet / ".git").rename(fleet.parent / "git")
    else:
        (fleet / change).write_text(f"{(fleet / change).read_text()}# mine\n")
    done = row(trust.enroll, plan=plan)
    assert done.failed
    assert why in done.said[-1]
    assert recipients(fleet) == BEFORE
    if change == ".git":
        assert not row(trust.enroll, plan=True, data={"commit": False}).failed


def test_a_message_and_no_commit_of_ones_own(row: Rows, fleet: Path) -> None:
    row(trust.enroll, data={"commit_message": "{{ host }}: {{ steps | length }} steps"})
    assert git(fleet, "log", "-1", "--format=%B").strip() == "dev: 7 steps"


def test_no_commit(row: Rows, fleet: Path) -> None:
    row(trust.enroll, data={"commit": False}, docs=True)
    assert git(fleet, "log", "--format=%s") == "the fleet\n"
    assert " A docs/machines.md" in git(fleet, "status", "--porcelain")


def test_a_guest_made_elsewhere_tells_its_key_through_the_agent_and_proves_it(
    row: Rows, fleet: Path, emulator: Emulator, shared: Shared, sshd: Sshd
) -> None:
    pair = KeyPair(key("dev").private_openssh, key("dev").public)
    to_it = {"ssh_port": sshd.port, "ssh_key": str(sshd.key)}
    vm(emulator, "127.0.0.1", key=pair.public, system=NIXOS)
    silent = row(trust.enroll, data=to_it)
    assert silent.failed
    assert "the host key that its agent tells cannot be proven: no SSH at 127.0.0.1" in silent.said[-1]
    sshd.start(pair, system=NIXOS, mac="bc:24:11:00:00:99")
    another = row(trust.enroll, data=to_it)
    assert another.failed
    assert "the machine at 127.0.0.1 is not vm 110 (dev)" in another.said[-1]
    assert recipients(fleet) == BEFORE
    sshd.kill()
    sshd.start(pair, system=NIXOS)
    done = row(trust.enroll, data=to_it)
    assert not done.failed, done.said
    assert recipients(fleet) == WITH_DEV
    assert shared.keys.held("dev") is None


def test_the_key_of_another_host_is_nobodys_to_enroll(
    row: Rows, fleet: Path, emulator: Emulator, shared: Shared
) -> None:
    other = next(host for host in shared.fleet.hosts.values() if host.public_key and host.id != "dev")
    vm(emulator, "127.0.0.1", key=str(other.public_key), system=NIXOS)
    outcome = row(trust.enroll)
    assert outcome.failed
    assert f"vm 110 (dev): its agent tells the host key of {other.id} as its own" in outcome.said[-1]
    assert recipients(fleet) == BEFORE


def test_a_guest_that_is_somebody_elses_is_refused(row: Rows, fleet: Path, emulator: Emulator) -> None:
    vm(emulator, "127.0.0.1", key=key("dev").public, system=NIXOS, description="mine")
    outcome = row(trust.enroll)
    assert outcome.failed
    assert "its notes lack the line" in " ".join(outcome.said)
    assert recipients(fleet) == BEFORE


def test_a_machine_that_nobody_knows_is_enrolled_after_its_installation(
    shared: Shared, fleet: Path, said: Said
) -> None:
    host = connected(shared, "metal", age_identity=str(identity_of(fleet.parent)))
    host.state.activate_host(host)
    outcome = perform(host, said, trust.enroll)
    assert outcome.failed
    assert "metal: no host key is known; install it first" in " ".join(outcome.said)


# The machine answers


@pytest.fixture
def machine(emulator: Emulator, sshd: Sshd, shared: Shared, fleet: Path, said: Said) -> Callable[..., Rows]:
    """Starts `dev`, installed, with its key and this set-up."""

    def start(*setup: str, pair: Any = None) -> Rows:
        pair = pair or shared.keys.ensure("dev")
        vm(emulator, "127.0.0.1", key=pair.public, system=NIXOS)
        system = f"mkdir -p {DESCRIBED.toplevel}; ln -s {DESCRIBED.toplevel} /run/current-system"
        sshd.start(pair, system=NIXOS, setup="\n".join((system, *setup)))

        def one(operation: Any, *, plan: bool = False, **arguments: Any) -> Outcome:
            own: dict[str, Any] = {"age_identity": str(identity_of(fleet.parent))}
            host = connected(shared, ssh_port=sshd.port, ssh_key=str(sshd.key), boot_deadline=10, **own)
            return perform(host, said, operation, plan=plan, **arguments)

        return one

    return start


def test_the_private_half_goes_when_the_machine_has_shown_it_and_hosts_nix_pins_it(
    machine: Callable[..., Rows], shared: Shared
) -> None:
    run = machine()
    early = run(trust.forget_key)
    assert early.failed
    assert "hosts.nix does not pin the key of which the private half is here; enroll it" in early.said[-1]
    assert shared.keys.held("dev") is not None
    assert not run(trust.enroll).failed
    done = run(trust.forget_key)
    assert (done.changed, done.failed) == (True, False), done.said
    assert shared.keys.held("dev") is None
    assert not shared.keys.private_key_file("dev").with_suffix(".pub").exists()
    shared.fleet = replace(shared.fleet, hosts=load_fleet(shared.fleet.path).hosts)
    assert not run(trust.forget_key).changed


@pytest.mark.slow
def test_another_key_than_the_one_that_is_here_is_not_proof(machine: Callable[..., Rows], shared: Shared) -> None:
    run = machine()
    run(trust.enroll)
    kept = shared.keys.private_key_file("dev")
    kept.write_text(generate_ed25519("root@dev").private_openssh)
    outcome = run(trust.forget_key)
    assert outcome.failed
    assert kept.exists()


def test_a_configuration_without_secrets_has_nothing_to_prove(row: Rows) -> None:
    assert not row(sops.decrypted).changed


def test_files_are_encrypted_as_the_rules_say(row: Rows, fleet: Path) -> None:
    config = fleet / "secrets" / ".sops.yaml"
    config.write_text(config.read_text().replace("          - *igp\n", ""))
    git(fleet, "commit", "-qam", "without igp")
    done = row(sops.updatekeys)
    assert (done.changed, done.failed) == (True, False), done.said
    assert recipients(fleet) == {name: who - {"igp"} for name, who in BEFORE.items()}
    assert not row(sops.updatekeys).changed


TOOL = f"""cat >/usr/bin/ssh-to-age <<'EOF'
#!/bin/sh
[ "$1" = -i ] && echo {key("dev").recipient} || echo "AGE-SECRET-KEY-1 of $3"
EOF
chmod +x /usr/bin/ssh-to-age"""


def test_an_age_identity_is_made_on_the_machine_and_kept(machine: Callable[..., Rows], tmp_path: Path) -> None:
    run = machine(TOOL, f"echo '{key('dev').public}' >/etc/ssh/ssh_host_ed25519_key.pub")
    assert run(age.identity, plan=True, path="/run/key.txt").changed
    done = run(age.identity, path="/run/key.txt")
    assert (done.changed, done.failed) == (True, False), done.said
    assert not run(age.identity, path="/run/key.txt").changed


def test_an_age_identity_needs_the_tool_and_the_key(machine: Callable[..., Rows]) -> None:
    run = machine("rm -f /etc/ssh/ssh_host_ed25519_key.pub")
    assert "/etc/ssh/ssh_host_ed25519_key.pub does not exist" in run(age.identity, path="/run/key.txt").said[-1]
    assert "is not an absolute path" in run(age.identity, path="key.txt").said[-1]

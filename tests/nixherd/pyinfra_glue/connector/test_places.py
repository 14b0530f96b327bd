"""Where a machine is located, and connections that break."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import connectors, inventory
from pyinfra.api.host import Host

from nixherd.base import terminal
from nixherd.base.errors import Exit, FleetError, NotBegun, NotSent, Refused
from nixherd.base.process import Completed
from nixherd.deploy.machine import run_job
from nixherd.fleet.models import Access
from nixherd.link.client import DeadConnection, PinnedClient
from nixherd.locate import reach
from nixherd.proxmox.token import Server
from nixherd.pyinfra_glue import cli
from nixherd.pyinfra_glue.engine import PyinfraMachine
from nixherd.ssh.login_shell import Job
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.pyinfra_glue.connector.conftest import (
    SYSTEMS,
    connector_of,
    installing,
    known_at,
    new_key,
    until_dead,
)
from tests.runs import Said, executing, vm
from tests.shared import Shared
from tests.sshd import Sshd, free_port

pytestmark = pytest.mark.xdist_group("emulator")


@pytest.mark.parametrize("data", [{"must_answer": True}, {}])
def test_a_machine_that_answers_at_its_address_needs_no_hypervisor(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd, shared: Shared, data: dict[str, Any]
) -> None:
    pair = known_at(shared, "127.0.0.2", "127.0.0.1")
    vm(emulator, "127.0.0.3", key=new_key().public, system="ID=nixos")
    sshd.start(pair, system="ID=nixos")
    before = len(emulator.requests())
    host = executing(run(**data))
    assert host.run_shell_command("echo here")[1].stdout == "here"
    shared.token_file.unlink()
    host.connector.drop()  # type: ignore[attr-defined]
    assert host.run_shell_command("echo again")[1].stdout == "again"
    assert emulator.requests()[before:] == []


def test_a_name_that_ssh_config_knows_needs_no_hypervisor(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd, shared: Shared, tmp_path: Path
) -> None:
    pair, dev = new_key(), shared.host("dev")
    shared.fleet = replace(
        shared.fleet,
        hosts={"dev": replace(dev, public_key=pair.public, hostname="box.invalid", ssh_alias="box")},
    )
    shared.token_file.unlink()
    sshd.start(pair, address="127.0.0.2", system="ID=nixos")
    config = tmp_path / "ssh_config"
    config.write_text("Host box\n  HostName 127.0.0.2\n")
    assert run(must_answer=True, ssh_config_file=str(config)).connected
    assert emulator.requests() == []


def test_whose_names_lead_elsewhere_is_where_its_agent_says(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd, shared: Shared
) -> None:
    pair = known_at(shared, "127.0.0.2")
    vm(emulator, "127.0.0.1", key=new_key().public, system="ID=nixos")
    sshd.start(new_key("a stranger"), address="127.0.0.2")
    sshd.start(pair, system="ID=nixos")
    place = connector_of(run(must_answer=True)).place
    assert place is not None
    assert (place.address, place.identity is not None) == ("127.0.0.1", True)


@pytest.mark.parametrize(("down", "why"), [("token", "token file "), ("endpoint", "cannot connect to https://")])
def test_what_could_not_be_asked_is_said_where_nobody_answers(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd, shared: Shared, said: Said, down: str, why: str
) -> None:
    known_at(shared, "127.0.0.2")
    shared.token_file.unlink()
    if down == "endpoint":
        endpoint = replace(emulator.endpoint, port=free_port())
        shared.fleet = replace(shared.fleet, endpoint=endpoint)
        shared.token_file.write_text(replace(emulator.token, server=Server.of(endpoint)).to_toml())
        shared.token_file.chmod(0o600)
    assert not run(must_answer=True).connected
    [line] = [line for line in said() if "127.0.0.2" in line]
    assert line.startswith(f"no SSH at 127.0.0.2: Connection refused; the hypervisor cannot be asked: {why}")
    assert shared.run.failures == {"dev": Exit.REMOTE}


def test_without_an_agent_and_a_pinned_key_nothing_can_be_proven(
    run: Callable[..., Host], emulator: Emulator, said: Said
) -> None:
    vm(emulator, "127.0.0.1", agent="0")
    assert not run(must_answer=True).connected
    assert any(
        "vm 110 (dev) has no guest agent, which alone could prove that a machine is it" in line for line in said()
    )
    vm(emulator, "127.0.0.1")
    emulator.control("outside", do="stop-agent", vmid=110)
    assert not run(must_answer=True).connected
    assert any("only a publicKey in hosts.nix can prove that a machine is it" in line for line in said())


@pytest.mark.parametrize("data", [{"may_install": True}, {}])
def test_whoever_installs_has_the_hypervisor_vouch_for_the_guest(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd, shared: Shared, data: dict[str, Any]
) -> None:
    """Also where a run has found it by its name before that was known."""
    pair = known_at(shared, "127.0.0.1")
    vm(emulator, "127.0.0.1", key=new_key().public, system="ID=nixos")
    sshd.start(pair, system="ID=nixos")
    host = run(**data)
    connector = connector_of(host)
    assert connector.place is not None
    assert (connector.place.identity is not None) == ("may_install" in data)
    connector = connector_of(installing(host))
    assert connector.reach().identity is not None, "proven by its agent"
    with pytest.raises(Refused, match="it does not have what the agent wrote down for its root"):
        connector.prove_for_wiping()


def test_a_host_is_asked_for_its_neighbours_on_a_connection_of_its_own(
    run: Callable[..., Host], sshd: Sshd, shared: Shared
) -> None:
    """Pinned like any other, and never the hypervisor, which 127.0.0.1 is here."""
    pair, hosts = new_key(), shared.fleet.hosts
    metal = replace(hosts["metal"], public_key=pair.public, addresses=("127.0.0.2",))
    shared.fleet = replace(shared.fleet, hosts={**hosts, "metal": metal})
    leases = "mkdir -p /var/lib/misc; echo 0 bc:24:11:00:01:10 10.9.9.8 dev '*' >/var/lib/misc/dnsmasq.leases"
    sshd.start(pair, address="127.0.0.2", setup=leases)
    connector = connector_of(run("metal"))
    told = connector.told_by(metal)
    assert [each.address for each in told if each.mac == "bc:24:11:00:01:10"] == ["10.9.9.8"]
    assert connector.connected, "which is not the run's own connection"
    logins = sshd.logins
    assert connector.told_by(metal) == told
    assert sshd.logins == logins, "it was asked a moment ago"

    def refused(**changes: Any) -> str:
        shared.context.sightings.told.clear()
        shared.fleet = replace(shared.fleet, hosts={**hosts, "metal": replace(metal, **changes)})
        with pytest.raises((OSError, FleetError)) as caught:
            connector.told_by(shared.host("metal"))
        return str(caught.value)

    assert "shows another host key than the pinned one" in refused(public_key=new_key().public)
    assert "127.0.0.1 is the hypervisor's API: a hypervisor is never logged in to" in refused(addresses=("127.0.0.1",))
    assert "it takes forced commands alone" in refused(access=Access.TRIGGER)
    assert "no host key is pinned for it in hosts.nix" in refused(public_key=None)


def test_a_machine_that_takes_forced_commands_alone_is_told_nothing_else(
    run: Callable[..., Host], shared: Shared
) -> None:
    hosts = shared.fleet.hosts
    gated = replace(hosts["metal"], access=Access.PUSH_CLOSURE)
    shared.fleet = replace(shared.fleet, hosts={**hosts, "metal": gated})
    machine = PyinfraMachine(run("metal"))
    with pytest.raises(NotBegun, match="it takes forced commands alone; nothing was sent to it"):
        run_job(machine, Job("gc", "key", "true", 5))


@pytest.mark.parametrize("times", [1, 2])
def test_forced_commands_are_told_anew_where_the_connection_was_dead_before(
    run: Callable[..., Host], sshd: Sshd, shared: Shared, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """As any other command: between two of a rollout a connection stands still for as long as the others take."""
    sshd.start(known_at(shared, "127.0.0.1"), system="ID=nixos")
    connector, say = connector_of(executing(run())), PinnedClient.say
    dead = [DeadConnection("the connection broke: no answer")] * times

    def broken(client: PinnedClient, words: str, timeout: float) -> Completed:
        if dead:
            raise dead.pop()
        return say(client, words, timeout)

    monkeypatch.setattr(PinnedClient, "say", broken)
    if times > 1:
        with pytest.raises(NotSent, match="the connection broke"):
            connector.forced("echo protocol=3", 5)
        return
    before = connector.client
    assert connector.forced("echo protocol=3", 5)[1].stdout == "protocol=3"
    assert connector.client is not before


def test_known_hosts_are_gone_afterwards(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd, shared: Shared
) -> None:
    pair = shared.keys.ensure("dev")
    vm(emulator, "127.0.0.1", key=pair.public, system="ID=nixos")
    sshd.start(pair, system="ID=nixos")
    host = run()
    directory = shared.run.state_of("dev").directory
    known = list(shared.run.known_hosts_of("dev").iterdir())
    key = " ".join(pair.public.split()[:2])
    assert {file.read_text() for file in known} == {f"[{at}]:{sshd.port} {key}\n" for at in ("127.0.0.1", "dev")}
    host.disconnect()
    assert not any(file.exists() for file in known)
    assert {path.name for path in directory.iterdir()} == {"ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"}


def test_a_dead_connection_is_made_anew(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd, shared: Shared
) -> None:
    pair = shared.keys.ensure("dev")
    vm(emulator, "127.0.0.1", key=pair.public, system="ID=nixos")
    sshd.start(pair, system="ID=nixos")
    host = executing(run(boot_deadline=10))
    sshd.kill()
    sshd.start(pair, system="ID=nixos")
    assert until_dead(host).run_shell_command("echo again")[1].stdout == "again"
    assert sshd.logins == 2


def test_a_machine_that_moved_is_found_again(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd, shared: Shared
) -> None:
    pair = shared.keys.ensure("dev")
    vm(emulator, "127.0.0.1", key=pair.public, system="ID=nixos")
    sshd.start(pair, system="ID=nixos")
    host = executing(run(boot_deadline=10))
    sshd.kill()
    vm(emulator, "127.0.0.2", key=pair.public, system="ID=nixos")
    sshd.start(pair, system="ID=nixos", address="127.0.0.2")
    assert until_dead(host).run_shell_command("echo $SSH_CONNECTION")[1].stdout.split()[2] == "127.0.0.2"


def test_addresses_are_tried_in_order(run: Callable[..., Host], sshd: Sshd) -> None:
    key = new_key()
    sshd.start(key)
    place = connector_of(run("metal", host_key=key.public)).place
    assert place is not None
    assert (place.address, place.epoch, place.user) == ("127.0.0.1", reach.Epoch.CLONE, "root")


def test_who_only_asks_goes_to_an_installed_machine_of_which_the_operator_told(
    run: Callable[..., Host], sshd: Sshd, shared: Shared, said: Said
) -> None:
    key = new_key()
    sshd.start(key, system=SYSTEMS["installer"])
    assert not run("metal", host_key=key.public, must_answer=True).connected
    assert any("metal runs no installed system: what answers is the installer;" in line for line in said())
    assert shared.run.failures == {"metal": Exit.REFUSED}
    assert sshd.commands == 1
    sshd.kill()
    sshd.start(key, system=SYSTEMS["final"])
    assert run("metal", host_key=key.public, must_answer=True).connected


def test_what_stops_the_api_does_not_stop_who_needs_none(
    run: Callable[..., Host], sshd: Sshd, shared: Shared, said: Said
) -> None:
    key = new_key()
    sshd.start(key)
    shared.token_file.unlink()
    assert not run("dev").connected
    assert run("metal", host_key=key.public).connected
    assert len([line for line in said() if line.startswith(f"token file {shared.token_file}: missing")]) == 1


def test_a_guest_that_refuses_our_keys_is_asked_once_and_the_refusal_is_the_reason(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 300 seconds a real guest was asked 230 times for cloud-init, and 450 lines were written."""
    monkeypatch.setattr(terminal, "GRACE", 0.0)
    key, other = new_key(), new_key("other")
    file = tmp_path / "other"
    file.write_text(other.private_openssh)
    file.chmod(0o600)
    vm(emulator, "127.0.0.1", key=key.public)
    sshd.start(key)
    host = installing(run(ssh_key=str(file), boot_deadline=5))
    lines: list[str] = []
    monkeypatch.setattr(host, "log", lines.append)
    with pytest.raises(
        OSError, match=r"dev: waiting for .*: not within 5 s; last: .* accepts none of our keys; add one"
    ):
        host.run_shell_command("true")
    assert emulator.changes() == ["POST /nodes/prom/qemu/110/agent/exec"]
    assert [line.partition(" (")[0] for line in lines] == ["waiting for cloud-init", lines[-1].partition(" (")[0]]
    assert "accepts none of our keys" in lines[-1]


def test_who_is_not_let_in_is_told_what_to_do(run: Callable[..., Host], sshd: Sshd, tmp_path: Path, said: Said) -> None:
    key, other = new_key(), new_key("other")
    sshd.start(key)
    file = tmp_path / "other"
    file.write_text(other.private_openssh)
    file.chmod(0o600)
    assert not run("metal", host_key=key.public, ssh_key=str(file), ssh_hostname="127.0.0.1").connected
    assert (
        "root@127.0.0.1 accepts none of our keys; add one to its authorized_keys, or name another with --data "
        "ssh_key=FILE; where it has one, look whether the login shell of root exists there: sshd says no without it"
        in said()
    )


def test_what_is_installed_here_is_read_once_for_all_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    find = connectors.entry_points
    for module in (connectors, inventory):
        monkeypatch.setattr(module, "get_all_connectors", module.get_all_connectors)  # put back at the end

    def entry_points(**group: Any) -> Any:
        looked.append(group)
        return find(**group)

    monkeypatch.setattr(connectors, "entry_points", entry_points)
    cli._look_connectors_up_once()
    made = inventory.Inventory(([f"@ssh/host{number}" for number in range(20)], {}))
    assert (len(made.hosts), len(looked)) == (20, 1)

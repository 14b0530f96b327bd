"""The connector against real sshds on loopback, and an API of states that says where they are."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import connectors, inventory
from pyinfra.api.host import Host

from facts.machine import Machine as Machine_
from nixherd import narration
from nixherd.errors import FleetError, Refused
from nixherd.exit_codes import Exit
from nixherd.fleet.models import Access
from nixherd.locate import reach
from nixherd.locate.reach import NotInstalled
from nixherd.proxmox.token import Server
from nixherd.pyinfra_glue import cli
from nixherd.pyinfra_glue.fleet import FleetConnector
from nixherd.ssh.keys import KeyPair, generate_ed25519
from tests.nixherd.proxmox.conftest import Emulator
from tests.runs import Said, connected, executing, said_by, shared_at, vm
from tests.shared import Shared
from tests.sshd import MAC, Sshd, free_port

pytestmark = pytest.mark.xdist_group("emulator")


@pytest.fixture
def shared(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    # loopback is no address that others can reach
    monkeypatch.setattr(reach, "address_of", lambda config, interfaces: interfaces[0].addresses[0])
    return shared_at(emulator, tmp_path)


@pytest.fixture
def run(shared: Shared, sshd: Sshd) -> Callable[..., Host]:
    """A run over one host, connected as pyinfra does it."""

    def start(host_id: str = "dev", **data: Any) -> Host:
        return connected(shared, host_id, **{"ssh_port": sshd.port, "ssh_key": str(sshd.key), **data})

    return start


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    return said_by(caplog)


def connector_of(host: Host) -> FleetConnector:
    assert isinstance(host.connector, FleetConnector)
    return host.connector


def installing(host: Host) -> Host:
    """A run that installs the machine, as its operations say when their turn comes."""
    connector_of(host).installs = True
    return executing(host)


def new_key(name: str = "host") -> KeyPair:
    return generate_ed25519(name)


# An absent machine


def test_an_absent_machine_has_nothing_to_say_while_planning(
    run: Callable[..., Host], emulator: Emulator, said: Said
) -> None:
    host = run()
    assert host.connected
    assert "absent: vm 110 (dev) does not exist on prom" in said()
    ok, output = host.run_shell_command("cat /etc/os-release")
    assert (ok, output.output) == (True, "")
    assert host.get_fact(Machine_) is None
    assert emulator.changes() == []


def test_an_absent_machine_fails_its_host_when_executing(run: Callable[..., Host]) -> None:
    host = executing(run())
    with pytest.raises(OSError, match=r"vm 110 \(dev\) does not exist on prom; provision it first"):
        host.run_shell_command("true")


def test_a_machine_on_its_way_is_waited_for_until_the_deadline(run: Callable[..., Host], emulator: Emulator) -> None:
    vm(emulator, "127.0.0.1", key=new_key().public)
    emulator.control("outside", do="stop-agent", vmid=110)
    began = time.monotonic()
    host = installing(run())
    with pytest.raises(OSError, match=r"dev: waiting for clone or installer or final: not within 1 s; last: .*agent"):
        host.run_shell_command("true")
    assert time.monotonic() - began < 12


def test_for_exec_and_fact_an_absent_machine_is_a_failure(run: Callable[..., Host], said: Said) -> None:
    assert not run(must_answer=True).connected
    assert "vm 110 (dev) does not exist on prom; provision it first" in said()


# Keys and epochs


def test_the_clone_must_show_the_key_that_its_agent_read(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd
) -> None:
    key = new_key()
    vm(emulator, "127.0.0.1", key=key.public)
    sshd.start(key)
    host = run()
    assert (
        connector_of(host).place is None
    )  # whether cloud-init is done is asked by a changing call: not while planning
    assert host.get_fact(Machine_) is None
    assert emulator.changes() == []
    ok, output = installing(host).run_shell_command("cat /etc/os-release")
    assert (ok, output.stdout) == (True, "ID=debian")
    assert emulator.changes() == ["POST /nodes/prom/qemu/110/agent/exec"]


@pytest.mark.parametrize("system", ["ID=debian", "ID=nixos\nVARIANT_ID=installer", "ID=nixos"])
def test_another_key_is_refused_before_anything_is_sent(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd, shared: Shared, system: str
) -> None:
    pinned = shared.keys.ensure("dev").public
    vm(emulator, "127.0.0.1", key=new_key("the agent's word").public, system=system)
    sshd.start(new_key("somebody in between"), system=system)
    with pytest.raises(OSError, match=r"shows another host key than the pinned one .*; nothing was sent to it"):
        installing(run()).run_shell_command("true")
    assert not sshd.contacted
    assert pinned  # which is not what the agent says


def test_each_epoch_accepts_its_own_key_only(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd, shared: Shared
) -> None:
    """The installed machine shows the key that was generated here, whatever the agent reads there."""
    pair = shared.keys.ensure("dev")
    vm(emulator, "127.0.0.1", key=new_key().public, system="ID=nixos")
    sshd.start(pair, system="ID=nixos")
    host = run()
    place = connector_of(host).place
    assert place is not None
    assert (place.epoch, place.host_key) == (reach.Epoch.FINAL, pair.public)
    # and that key is no pass for an installer
    host.disconnect()
    sshd.kill()
    vm(emulator, "127.0.0.1", key=new_key().public, system="ID=nixos\nVARIANT_ID=installer")
    sshd.start(pair, system="ID=nixos\nVARIANT_ID=installer")
    with pytest.raises(OSError, match=r"dev \(installer\) at 127.0.0.1 shows another host key"):
        installing(host).run_shell_command("true")
    assert sshd.logins == 1


# The proof

SYSTEMS = {"clone": "ID=debian", "installer": "ID=nixos\nVARIANT_ID=installer", "final": "ID=nixos"}
Machine = Callable[..., None]


@pytest.fixture
def machine(emulator: Emulator, sshd: Sshd, shared: Shared) -> Machine:
    """The VM `dev` in an epoch, and an sshd with its key, which need not be in it."""

    def start(epoch: str, *, shows: str | None = None, mac: str = MAC, **config: Any) -> None:
        pair = shared.keys.ensure("dev") if epoch == "final" else new_key()
        vm(emulator, "127.0.0.1", key=pair.public, system=SYSTEMS[epoch], **config)
        sshd.start(pair, system=SYSTEMS[shows or epoch], mac=mac)

    return start


@pytest.mark.parametrize("epoch", SYSTEMS)
def test_a_machine_without_the_vms_card_is_another(
    run: Callable[..., Host], machine: Machine, sshd: Sshd, shared: Shared, epoch: str
) -> None:
    machine(epoch, mac="bc:24:11:00:00:99")
    host = installing(run())
    with pytest.raises(
        OSError, match=r"the machine at 127\.0\.0\.1 is not vm 110 \(dev\).*: no card of it has net0's MAC"
    ):
        host.run_shell_command("touch /etc/was-here")
    assert shared.run.failures == {"dev": Exit.REFUSED}
    assert sshd.commands == sshd.logins > 0  # the proof's own, each time


@pytest.mark.parametrize("epoch", SYSTEMS)
def test_a_machine_in_another_boot_than_the_vm_is_another(
    run: Callable[..., Host], machine: Machine, shared: Shared, epoch: str
) -> None:
    machine(epoch, boot_id="0ea6c7f2-0000-4000-8000-000000000000\n")
    host = installing(run())
    with pytest.raises(OSError, match=r"its boot_id is [0-9a-f-]{36}, and the agent tells 0ea6c7f2-"):
        host.run_shell_command("true")
    assert shared.run.failures == {"dev": Exit.REFUSED}


def test_a_vm_is_proven_by_file_read_alone(run: Callable[..., Host], machine: Machine, emulator: Emulator) -> None:
    """So that readonly guests are as well, with no new right of the token's."""
    machine("final")
    assert connector_of(run()).connected
    assert emulator.changes() == []


@pytest.mark.parametrize(("told", "shown"), [("final", "installer"), ("final", "clone"), ("installer", "final")])
def test_the_system_that_answers_is_the_one_whose_key_it_shows(
    run: Callable[..., Host], machine: Machine, said: Said, told: str, shown: str
) -> None:
    machine(told, shows=shown)
    assert not run().connected
    key = "installed system" if told == "final" else told
    assert any(f"vm 110 (dev): with the key of its {key}, the {shown} answers at 127.0.0.1" in line for line in said())


def test_a_guest_proves_by_its_root_what_is_to_be_wiped(
    run: Callable[..., Host], machine: Machine, emulator: Emulator
) -> None:
    machine("installer")
    connector = connector_of(installing(run()))
    with pytest.raises(Refused, match="it does not have what the agent wrote down for its root"):
        connector.prove_for_wiping()
    assert emulator.changes() == ["POST /nodes/prom/qemu/110/agent/exec"]


# By names and addresses first


def known_at(shared: Shared, *addresses: str) -> KeyPair:
    """`dev` is installed, its key is pinned, and hosts.nix says where it is."""
    pair = new_key()
    dev = replace(shared.host("dev"), public_key=pair.public, addresses=addresses)
    shared.fleet = replace(shared.fleet, hosts={**shared.fleet.hosts, "dev": dev})
    return pair


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
    assert (place.address, place.asked is not None) == ("127.0.0.1", True)


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
    assert (connector.place.asked is not None) == ("may_install" in data)
    connector = connector_of(installing(host))
    assert connector.reach().asked is not None, "proven by its agent"
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
        shared.context.sightings._told._results.clear()
        shared.fleet = replace(shared.fleet, hosts={**hosts, "metal": replace(metal, **changes)})
        with pytest.raises((OSError, FleetError)) as caught:
            connector.told_by(shared.host("metal"))
        return str(caught.value)

    assert "shows another host key than the pinned one" in refused(public_key=new_key().public)
    assert "127.0.0.1 is the hypervisor's API: a hypervisor is never logged in to" in refused(addresses=("127.0.0.1",))
    assert "it takes forced commands alone" in refused(access=Access.TRIGGER)
    assert "no host key is pinned for it in hosts.nix" in refused(public_key=None)


# What this run has no business with


@pytest.mark.parametrize("epoch", ["clone", "installer"])
def test_who_only_asks_never_meets_what_is_not_installed(
    run: Callable[..., Host], machine: Machine, sshd: Sshd, shared: Shared, said: Said, epoch: str
) -> None:
    machine(epoch)
    assert not run(must_answer=True).connected
    assert any(
        f"vm 110 (dev) runs no installed system: its agent says that it is the {epoch}" in line for line in said()
    )
    assert shared.run.failures == {"dev": Exit.REFUSED}
    assert not sshd.contacted


def test_a_run_that_installs_nothing_does_nothing_in_an_installer(
    run: Callable[..., Host], machine: Machine, sshd: Sshd, shared: Shared
) -> None:
    machine("installer")
    host = run()
    assert host.get_fact(Machine_) is None  # while planning
    with pytest.raises(OSError, match=r"vm 110 \(dev\) runs no installed system: what answers is the installer"):
        executing(host).run_shell_command("touch /etc/was-here")
    with pytest.raises(NotInstalled):
        connector_of(host).destination()
    assert shared.run.failures == {"dev": Exit.REFUSED}
    assert sshd.commands == 1
    assert installing(host).run_shell_command("echo here")[1].stdout == "here"


def test_a_host_whose_key_is_pinned_answers_as_installed_only(
    run: Callable[..., Host], machine: Machine, sshd: Sshd, shared: Shared, said: Said
) -> None:
    pinned = replace(shared.host("dev"), public_key=new_key().public)
    shared.fleet = replace(shared.fleet, hosts={**shared.fleet.hosts, "dev": pinned})
    machine("installer")
    assert not run().connected
    assert any("vm 110 (dev) answers as installed only, for hosts.nix pins the key of dev" in line for line in said())
    assert not sshd.contacted


def test_forced_commands_are_not_put_to_the_proof(
    run: Callable[..., Host], machine: Machine, sshd: Sshd, shared: Shared
) -> None:
    """It would be taken for what they are there for; the pinned key is what such a machine proves itself by."""
    triggered = replace(shared.host("dev"), access=Access.TRIGGER)
    shared.fleet = replace(shared.fleet, hosts={**shared.fleet.hosts, "dev": triggered})
    machine("final", mac="bc:24:11:00:00:99")
    host = run(must_answer=True)
    assert host.connected
    assert (sshd.logins, sshd.commands) == (1, 0)


def test_nobody_elses_machine_is_believed(run: Callable[..., Host], emulator: Emulator, sshd: Sshd, said: Said) -> None:
    key = new_key()
    vm(emulator, "127.0.0.1", key=key.public, description="built by hand")
    sshd.start(key)
    assert not run().connected
    assert any("vm 110 on prom exists but is not this fleet's: its notes lack" in line for line in said())
    assert not sshd.contacted


def test_an_installed_system_needs_no_mark(
    run: Callable[..., Host], emulator: Emulator, sshd: Sshd, shared: Shared, said: Said
) -> None:
    """Its key is pinned, whoever made the VM; a switched-off one is that, and nothing else."""
    pair = new_key()
    pinned = replace(shared.host("dev"), public_key=pair.public)
    shared.fleet = replace(shared.fleet, hosts={**shared.fleet.hosts, "dev": pinned})
    vm(emulator, "127.0.0.1", key=pair.public, system="ID=nixos", description="built by hand")
    sshd.start(pair, system="ID=nixos")
    host = run(must_answer=True)
    assert host.connected
    assert host.run_shell_command("echo here")[1].stdout == "here"
    host.disconnect()
    emulator.control("reset")
    about = {"name": "dev", "description": "built by hand"}
    off = {"type": "qemu", "node": "prom", "status": "stopped", "config": about}
    emulator.control("reset", patch={"vms": {"110": off}})
    assert not run(must_answer=True).connected
    assert any("vm 110 (dev) is stopped; start it first" in line for line in said())
    assert emulator.changes() == []


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


# Moving


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


def until_dead(host: Host) -> Host:
    """Wait until the kernel has told us that the connection is gone."""
    client = connector_of(host).client
    assert client is not None
    transport = client.get_transport()
    assert transport is not None
    transport.join(5)
    return host


# Machines that no hypervisor knows of


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


def test_without_any_key_nobody_is_asked(run: Callable[..., Host], sshd: Sshd, said: Said) -> None:
    sshd.start(new_key())
    assert not run("metal").connected
    assert any("no host key is known to pin; say which one it shows now" in line for line in said())
    assert "Connection from" not in sshd.log.read_text()


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
    monkeypatch.setattr(narration, "GRACE", 0.0)
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

"""A machine must prove that it is the guest: its epoch's key, its card, its boot."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host

from nixherd.base.errors import Exit, NotSent, Refused
from nixherd.facts.machine import Machine as Machine_
from nixherd.facts.nixos import FailedUnits
from nixherd.fleet.models import Access
from nixherd.locate import reach
from nixherd.locate.reach import NotInstalled
from nixherd.operations import nixos
from nixherd.pyinfra_glue.engine import PyinfraMachine
from nixherd.pyinfra_glue.installing import machine_of
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.pyinfra_glue.connector.conftest import SYSTEMS, Machine, connector_of, installing, new_key
from tests.runs import Said, executing, perform, vm
from tests.shared import Shared
from tests.sshd import Sshd

pytestmark = pytest.mark.xdist_group("emulator")


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


def test_an_absent_machine_is_not_said_to_have_answered_with_nothing(run: Callable[..., Host], said: Said) -> None:
    host = run()
    with pytest.raises(NotSent, match="dev: not connected, so it was not asked; run this again when it answers"):
        PyinfraMachine(host).run("true")
    assert machine_of(host) is None
    outcome = perform(host, said, nixos.rollback, plan=True)
    assert outcome.failed
    assert outcome.said[-1] == "dev: not connected, so it was not asked; run this again when it answers"


def test_a_connection_that_is_lost_before_an_answer_that_a_run_needs_is_not_silence(
    run: Callable[..., Host], machine: Machine, said: Said
) -> None:
    """`pyinfra … fact facts.nixos.FailedUnits` would say that no unit has failed."""
    machine("final")
    host = run(must_answer=True)
    connector_of(host).drop()
    with pytest.raises(PyinfraError, match="No hosts remaining!"):
        host.get_fact(FailedUnits)
    assert any("dev: not connected, so it was not asked" in line for line in said())


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
    assert time.monotonic() - began < 60


def test_for_exec_and_fact_an_absent_machine_is_a_failure(run: Callable[..., Host], said: Said) -> None:
    assert not run(must_answer=True).connected
    assert "vm 110 (dev) does not exist on prom; provision it first" in said()


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
    # and that key is not a pass for an installer
    host.disconnect()
    sshd.kill()
    vm(emulator, "127.0.0.1", key=new_key().public, system="ID=nixos\nVARIANT_ID=installer")
    sshd.start(pair, system="ID=nixos\nVARIANT_ID=installer")
    with pytest.raises(OSError, match=r"dev \(installer\) at 127.0.0.1 shows another host key"):
        installing(host).run_shell_command("true")
    assert sshd.logins == 1


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


def test_without_any_key_nobody_is_asked(run: Callable[..., Host], sshd: Sshd, said: Said) -> None:
    sshd.start(new_key())
    assert not run("metal").connected
    assert any("pins no host key of it (publicKey), so it is not connected to" in line for line in said())
    assert "Connection from" not in sshd.log.read_text()

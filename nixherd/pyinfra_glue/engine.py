"""The engine in a run of pyinfra: its hosts as the engine's machines, and its rollouts."""

import socket
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from paramiko import Channel, SSHException
from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host
from pyinfra.connectors.util import CommandOutput

from nixherd.base.becoming_root import Become, Root
from nixherd.base.errors import FAILURES, Usage
from nixherd.base.process import Completed
from nixherd.deploy.activate import activate
from nixherd.deploy.build import builder_of
from nixherd.deploy.copy import copy_closure
from nixherd.deploy.history import new_directory
from nixherd.deploy.hooks import ask_before_activating
from nixherd.deploy.machine import ANSWER_DEADLINE, COMMAND_DEADLINE, Machine, look
from nixherd.deploy.operators import operator
from nixherd.deploy.options import USUAL, Engine, Goal, Options
from nixherd.deploy.report import Journal, Outcome
from nixherd.deploy.rollout import HostRun, Reached, Rollout, Target
from nixherd.deploy.running import ask_running, has_it
from nixherd.fleet.load import load_fleet
from nixherd.link.machine import LinkedMachine
from nixherd.locate.reach import Epoch
from nixherd.proxmox.permission import require_rebootable
from nixherd.pyinfra_glue.deploy_file import require_order
from nixherd.pyinfra_glue.hosts import connector_of, context_of, executing, failed, fleet_host
from nixherd.pyinfra_glue.operation import Change, NoChange
from nixherd.ssh.destination import Destination

INSTALLED = (Epoch.FINAL,)
T = TypeVar("T")

PLANNED = "plan"  # the id of a rollout that is only planned


class PyinfraMachine(LinkedMachine):
    """Implements `nixherd.deploy.machine.Machine`; `epochs` are the systems that may answer, all of the run's if none.

    pyinfra tells success from failure alone: the status is 0 or 1.
    """

    def __init__(self, host: Host, epochs: Collection[Epoch] = INSTALLED) -> None:
        self._host, self._epochs, self._connector = host, epochs, connector_of(host)
        super().__init__(self._connector)

    @property
    def is_local(self) -> bool:
        return self._connector.here is not None

    @property
    def user(self) -> str:
        return str(self._connector.data["ssh_user"])

    @property
    def boot_deadline(self) -> float:
        return self._connector.deadline

    @property
    def password(self) -> str | None:
        return self._connector.sudo_password

    def run(
        self, script: str, *, stdin: str | None = None, sudo: bool = False, deadline: float = COMMAND_DEADLINE
    ) -> Completed:
        if sudo:
            script, stdin = self._by_root(script, stdin)
        arguments: dict[str, Any] = {"_stdin": [stdin]} if stdin is not None else {}
        ok, output = self._connector.send(StringCommand(script), _timeout=int(deadline), **arguments)
        return _completed(ok, output)

    def _by_root(self, script: str, stdin: str | None) -> tuple[str, str | None]:
        """The script as root, where we are not that.

        pyinfra's own way would put the password into the machine's argv.
        """
        if self.user == "root":
            return script, stdin
        return Root(self.become, self.password).shell(script, stdin)

    def run_forced(self, words: str, *, deadline: float = ANSWER_DEADLINE) -> Completed:
        return _completed(*self._connector.forced(words, deadline))

    def reconnect(self, deadline: float | None = None, *, if_lost: bool = False, absent_ok: bool = False) -> str:
        if not if_lost:
            self._connector.drop()
        return self._connector.reach(deadline, epochs=self._epochs, absent_ok=absent_ok).address

    def look(self, ask: Callable[[], T], deadline: float | None = None) -> T:
        """The same as `nixherd.deploy.machine.look`, but once while planning, which waits for nobody."""
        return look(self, ask, deadline) if executing(self._host) else ask()

    def copy_to(self) -> Destination:
        return self._connector.destination()

    @contextmanager
    def tunnel(self, address: tuple[str, int], timeout: float) -> Iterator[Channel | socket.socket]:
        if self.is_local:
            with socket.create_connection(address, timeout) as connection:
                yield connection
            return
        client = self._connector.client
        transport = client.get_transport() if client else None
        if transport is None:
            raise OSError("the connection is gone")
        try:
            channel = transport.open_channel("direct-tcpip", address, ("localhost", 0), timeout=timeout)
        except (SSHException, EOFError) as error:
            raise OSError(f"no connection to {address[0]}:{address[1]} ({error})") from error
        try:
            channel.settimeout(timeout)
            yield channel
        finally:
            channel.close()

    def breaks(self, protocol: str) -> str | None:
        return self._connector.breaks(protocol)

    def give_password(self) -> bool:
        if self._host.data.get("sudo_password") != "stdin" or self.become is not Become.SUDO:
            return False
        read = context_of(self._host).run.sudo_password
        self._connector.sudo_password = read(lambda: sys.stdin.readline().rstrip("\n"))
        return True

    def say(self, text: str) -> None:
        self._host.log(text)


def _completed(ok: bool, output: CommandOutput) -> Completed:
    return Completed(output.stdout, output.stderr, 0 if ok else 1)


def begin_rollout(host: Host, **changes: Any) -> tuple[Rollout, HostRun]:
    """Begin this host's part in the rollout of the row that is under way; `changes` are options that differ.

    Usage when what was said of the host cannot be meant. FleetError when another run deploys this fleet.
    """
    host_id = str(host.data.host_id)
    fleet_host(host).require_read()
    options = options_of(host, **changes)
    if not fleet_host(host).is_nixos and not (options.goal is Goal.SWITCH and options.specialisation is None):
        raise Usage(f"{host_id}: goal={options.goal}: a home can be switched to, and no more")
    if fleet_host(host).is_nixos and options.backup_extension:
        remedy = "for a home beside its system write home-manager.backupFileExtension in the configuration"
        raise Usage(f"{host_id}: backup_extension={options.backup_extension} (-b): only a home takes it; {remedy}")
    if fleet_host(host).attribute.output.is_hive and options.engine is Engine.NIXOS_REBUILD:
        raise Usage(f"{host_id}: engine={options.engine}: nixos-rebuild knows no hive of colmena; use engine=guarded")
    key = (str(host.current_op_hash), executing(host))
    becomes_root = options.engine is Engine.NIXOS_REBUILD and fleet_host(host).user != "root"
    if becomes_root and fleet_host(host).become is not Become.SUDO:
        raise Usage(f"{host_id}: engine={options.engine}: nixos-rebuild is root by sudo alone; use engine=guarded")
    with context_of(host).rollouts.of_row[key] as row:
        if row.is_empty:
            row.value = _new(host)
        rollout = row.value
    host_run = HostRun(
        host=fleet_host(host),
        options=options,
        machine=PyinfraMachine(host),
        journal=rollout.journal,
        fleet_path=context_of(host).fleet.path,
        require_permission=lambda: require_rebootable(load_fleet(context_of(host).fleet.path), host_id),
    )
    rollout.journal.note("begin", host_id)
    rollout.hosts[host_id] = host_run
    context_of(host).rollouts.current[host_id, executing(host)] = rollout, host_run
    return rollout, host_run


def current(host: Host) -> tuple[Rollout, HostRun]:
    """This host's part in the rollout that it is in. Usage where no row of the deploy file has begun one."""
    host_id = str(host.data.host_id)
    try:
        return context_of(host).rollouts.current[host_id, executing(host)]
    except KeyError:
        raise Usage(f"{host_id}: this row goes on with a rollout; put deployment.reach before it") from None


def begin_reached(host: Host, **changes: Any) -> tuple[Rollout, HostRun, Reached]:
    """Begin a rollout of one row, and ask the machine what runs on it at this moment."""
    rollout, host_run = begin_rollout(host, **changes)
    address = host_run.machine.reconnect(if_lost=True) if executing(host) else ""
    reached = Reached(address, PyinfraMachine(host).look(lambda: ask_running(host_run.machine, host_run.kind)))
    host_run.value = reached
    return rollout, host_run, reached


def switch_to(host: Host, target: Target, rollout: Rollout, host_run: HostRun, reached: Reached) -> Change | NoChange:
    """Activate a system, or a home, that the machine has, as far as the row's goal goes."""
    goal = host_run.options.goal
    if has_it(reached.running, target.system, goal):
        host_run.end(Outcome.UNCHANGED, f"{target.system} is there")
        return NoChange(f"{host_run.id}: {target.system} is there")
    if not executing(host):
        host_run.end(Outcome.PLANNED, f"{goal} to {target.system}")
    return Change(f"{goal} to {target.system}", partial(activate, rollout, host_run, target, reached.running))


def copy_to(host: Host, paths: list[str]) -> Change:
    """Copy the closures of store paths to the machine; only what is missing there."""
    sign_with, is_nixos = options_of(host).sign_with, fleet_host(host).is_nixos
    copy = partial(copy_closure, PyinfraMachine(host), paths, is_nixos=is_nixos, sign_with=sign_with)
    return Change(f"copy {', '.join(paths)}", copy)


def builder_for(host: Host, host_run: HostRun) -> Machine | None:
    """The machine that builds for this host, None where that is done here. Usage when nobody of that name can."""

    def machine_of(host_id: str) -> Machine:
        return PyinfraMachine(next(each for each in host.state.inventory if each.data.host_id == host_id))

    return builder_of(context_of(host).fleet, host_run.machine, host_run.options.build_on, machine_of)


def _new(host: Host) -> Rollout:
    run, fleet = context_of(host).run, context_of(host).fleet.path
    selected = tuple(sorted(str(each.data.host_id) for each in _limited(host)))
    if executing(host):
        run.claim_fleet()
        run.journal = journal = run.journal if isinstance(run.journal, Journal) else Journal(new_directory())
        number = next(context_of(host).rollouts.numbers)
        rollout = Rollout(journal.directory.name + (f".{number}" if number > 1 else ""), journal, selected)
        rollout.ask = ask_before_activating()
    else:
        rollout = Rollout(PLANNED, run.journal, selected)
    goal, flake = options_of(host).goal, context_of(host).flake
    rollout.journal.note("run", run=rollout.id, who=operator(), fleet=fleet, flake=flake, goal=goal)
    return rollout


def options_of(host: Host, **changes: Any) -> Options:
    """What was said of a host: by the row, on the command line, in group data, or in its entry in hosts.nix."""

    def value(name: str) -> Any:
        if name in changes:
            return changes[name]
        data = host.data.get(name)
        return fleet_host(host).deployment.get(name) if data is None else data

    return Options.of(fleet_host(host).id, value)


def waves(host: Host) -> list[int]:
    """The waves of the hosts that are selected, in their order. Usage where pyinfra was told to go in another one."""
    require_order(host.data.get("without_order"))
    with context_of(host).rollouts.waves as waves:  # every host asks
        if waves.is_empty:
            numbers = set()
            for each in _limited(host):
                with suppress(*FAILURES):  # said when it is that host's turn
                    numbers.add(options_of(each).wave)
            waves.value = sorted(numbers) or [USUAL]
        return waves.value


def reached_ids(host: Host) -> tuple[str, ...]:
    """The ids of the hosts of this run that answer: they are evaluated together."""
    return tuple(sorted(str(each.data.host_id) for each in host.state.activated_hosts if not failed(each)))


def _limited(host: Host) -> list[Host]:
    return [each for each in host.state.inventory if host.state.is_host_in_limit(each)]

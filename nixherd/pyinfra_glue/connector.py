"""What our SSH connectors share in a run of pyinfra, and facts that the hypervisor answers instead of the machine."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from paramiko import SFTPError, SSHException, Transport
from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.connectors.scp.client import SCPException
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import CommandOutput
from typing_extensions import override

from nixherd.base.errors import AgentUnavailable, FleetError, NoAgent, NotSent
from nixherd.fleet.models import NO_ENDPOINT, Fleet, Vm
from nixherd.link.client import Keys, PinnedClient
from nixherd.link.failures import require_run
from nixherd.link.opening import Connected, opened
from nixherd.proxmox.guest.identity import address_of, next_vmid
from nixherd.proxmox.guest.observe import find, interfaces_of
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.pyinfra_glue.context import Context
from nixherd.ssh.destination import Destination
from nixherd.ssh.login_shell import Answer

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client

Arguments = Mapping[str, Any]


class ApiQuery(StringCommand):
    """A fact's command that the connector answers itself; it reads like the command that would show the same."""

    def __init__(self, name: str, **arguments: str | int | None) -> None:
        self.query = name
        self.arguments: Arguments = {key: value for key, value in arguments.items() if value is not None}
        super().__init__("nixherd", "vm", name, *(str(value) for value in self.arguments.values()))


def api_answer(hypervisor: Hypervisor, host_id: str, query: ApiQuery) -> Any:
    """The answer as plain values; None where the host is not a guest, or the guest does not exist (yet).

    FleetError when the hypervisor cannot be asked, or the question makes no sense.
    """
    fleet, arguments = hypervisor.fleet, query.arguments
    vm = fleet.vm_of(host_id)
    match query.query:
        case "storage":
            return [asdict(each) for each in hypervisor.client.storages(_node(fleet, vm))]
        case "content":
            node, storage = _node(fleet, vm), str(arguments["storage"])
            rows = hypervisor.client.volumes(node, storage, content=arguments.get("content"))
            return [asdict(each) for each in rows]
        case "next-id":
            return next_vmid(hypervisor.client, fleet, str(arguments["range"]))
        case name:
            found = find(hypervisor.client, fleet, vm) if vm else None
            return _OF_A_GUEST[name](hypervisor.client, found[0], vm, arguments) if vm and found else None


def _node(fleet: Fleet, vm: Vm | None) -> str:
    """The node that the guest is declared on, else the endpoint's."""
    if vm is not None:
        return fleet.node_of(vm)
    if fleet.endpoint is None:
        raise FleetError(f"{NO_ENDPOINT}; add host and node")
    return fleet.endpoint.node


def _status(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    status = client.status(node, vm.vmid, vm.type)
    return None if status is None else {**asdict(status), "node": node, "type": str(vm.type)}


def _config(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    config = client.config(node, vm.vmid, vm.type)
    return None if config is None else dict(config.values)


def _address(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    config = client.config(node, vm.vmid, vm.type)
    if config is None:
        return None
    try:
        return address_of(config, interfaces_of(client, node, vm)) or "none"
    except (AgentUnavailable, NoAgent):
        return "unknown"


def _backups(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    storage = arguments.get("storage")
    able = [each for each in client.storages(node) if "backup" in each.content and storage in (None, each.name)]
    able = [each for each in able if each.enabled or storage]  # one that is switched off is as good as not there
    if away := next((each for each in able if each.away), None):
        raise FleetError(
            f"storage {away.name} on {node} {away.away}; which backups it has is not known, name another one (storage=)"
        )
    names = [storage] if storage else [each.name for each in able]
    found = [row for name in names for row in client.volumes(node, name, content="backup", vmid=vm.vmid)]
    return [asdict(row) for row in found]


def _tasks(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    limit = int(arguments.get("limit") or 20)
    rows = (row for active in (True, False) for row in client.tasks(node, active=active, vmid=vm.vmid, limit=limit))
    return [{**asdict(row), "upid": str(row.upid)} for row in rows]


def _pending(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    return [asdict(each) for each in client.pending(node, vm.vmid, vm.type)]


def _snapshots(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    return [asdict(each) for each in client.snapshots(node, vm.vmid, vm.type)]


_OF_A_GUEST = {
    "status": _status,
    "config": _config,
    "ip": _address,
    "backups": _backups,
    "tasks": _tasks,
    "pending": _pending,
    "snapshots": _snapshots,
}


class Unasked(NotSent):
    """The machine is absent while a run only plans: nothing was asked, so nothing is known."""


class PinnedConnector(Connected, SSHConnector):  # type: ignore[misc]  # its client is not pyinfra's
    """pyinfra's, for machines whose host keys are known before anybody connects to them."""

    handles_execution = True
    sudo_password: str | None = None
    """what sudo on this machine asks for, where it does"""
    noise: Answer | None = None
    """the first answer that the machine's login shell printed beside"""

    @override
    @staticmethod
    def make_names_data(name: str | None = None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        yield str(name), {}, []

    @property
    def context(self) -> Context:
        context: Context = self.host.data.context
        return context

    @contextmanager
    def opened(
        self, to: Destination, who: str, at: str, transport: Callable[..., Transport], timeout: float
    ) -> Iterator[PinnedClient]:
        """As `nixherd.link.opening.opened`."""
        how: dict[str, Any] = {"keys_for": self._keys_for, "heard": self._heard}
        with opened(to, who, at, **how, transport=transport, timeout=timeout) as client:
            yield client

    def _keys_for(self, to: Destination) -> Keys:
        """The keys that a destination's user may log in with. OSError where pyinfra cannot read one of them."""
        try:
            given = self.make_paramiko_kwargs()  # which of pyinfra's data say it, and asks for a passphrase it needs
        except PyinfraError as error:  # which would end the run for all hosts
            raise OSError(str(error)) from error
        return Keys(to.user, to.identities, given.get("pkey"), given.get("password"))

    def _heard(self, answer: Answer, status: int) -> None:
        """Name the login shell that prints, once. NoShell where it did not run the command."""
        require_run(self.host.data.host_id, self.data["ssh_user"], answer, status)
        if answer.was_run:
            self.name_noise(answer)

    def name_noise(self, answer: Answer) -> None:
        """Say of a login shell that it prints, once."""
        if not answer.noise:
            return
        known, self.noise = self.noise, answer if answer.prints_on_stdout or self.noise is None else self.noise
        if known is not None:
            return
        text = answer.warning
        self.host.log_styled(text, fg="yellow", log_func=logger.warning)
        self.context.run.journal.note("found", self.host.data.host_id, login_shell=text)

    def breaks(self, what: str) -> str | None:
        """Why a protocol of this name cannot be spoken through the login shell there; None where it may."""
        return self.noise.breaks(what) if self.noise else None

    @override
    def run_shell_command(self, command: StringCommand, *args: Any, **arguments: Any) -> tuple[bool, CommandOutput]:
        """OSError also where a machine ends the output of a command, and never the command."""
        if self.client is not None:
            self.client.limit = arguments.get("_timeout")
        return super().run_shell_command(command, *args, **arguments)

    @override
    def _put_file(self, *args: Any, **arguments: Any) -> None:
        self._transfer(lambda: super(PinnedConnector, self)._put_file(*args, **arguments))  # type: ignore[no-untyped-call]

    @override
    def _get_file(self, *args: Any, **arguments: Any) -> None:
        self._transfer(lambda: super(PinnedConnector, self)._get_file(*args, **arguments))

    def _transfer(self, transfer: Callable[[], object]) -> None:
        """OSError, also where what answers does not speak the protocol: sshd starts it by the login shell, too."""
        try:
            transfer()
        except (SFTPError, SCPException, SSHException, EOFError, ConnectError) as error:
            protocol = str(self.data["ssh_file_transfer_protocol"])
            why = self.breaks(protocol) or str(error) or "it hung up"
            raise OSError(f"{self.host.data.host_id}: no files can be sent there by {protocol}: {why}") from error

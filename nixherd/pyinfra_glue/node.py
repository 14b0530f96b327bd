"""`@node/NAME`: pyinfra's SSH connector for a node of the hypervisor, which is not a host of the fleet.

Its host key is never learnt: the operator names it (`--data host_key=`), or has it in known_hosts. As on every
connection of ours no ssh_config is read on it; what is taken from one is what docs/ssh.md lists.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from paramiko import SSHException
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.util import CommandOutput
from typing_extensions import override

from nixherd.base.errors import FAILURES, FleetError, NotSent, Refused, Usage
from nixherd.base.files import expanded, write_whole
from nixherd.base.process import run
from nixherd.base.run import Run
from nixherd.base.ssh_keys import known_hosts_line, known_hosts_name
from nixherd.base.terminal import say, worded
from nixherd.fleet.groups import NODE_DATA, check_data, check_selection
from nixherd.fleet.models import DEFINITIONS, Fleet
from nixherd.fleet.revisions import Tree
from nixherd.link.client import DeadConnection, WatchedTransport
from nixherd.link.failures import Stranger, Unwelcome
from nixherd.link.opening import destination_of
from nixherd.nix.evaluator import Evaluator
from nixherd.proxmox.hypervisor import Definitions, Hypervisor
from nixherd.pyinfra_glue import cli
from nixherd.pyinfra_glue.connector import PinnedConnector
from nixherd.pyinfra_glue.context import Context
from nixherd.pyinfra_glue.deploy_file import declared
from nixherd.pyinfra_glue.inventory import (
    Entry,
    data_said,
    fleet_directory,
    named_by_connector,
    or_end,
    parsed_data,
    token_file_of,
)
from nixherd.ssh.destination import Destination
from nixherd.ssh.ssh_config import Configuration, config_options, known_hosts_files

CONNECT_TIMEOUT = 10.0  # seconds for TCP, and for each part of the handshake


class NodeConnector(PinnedConnector):
    """One per node."""

    @override
    @staticmethod
    def make_names_data(name: str | None = None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        return named_by_connector("node", name, nodes_beside)

    @override
    def connect(self) -> None:
        try:
            self._connect()
        except FAILURES as failure:
            error = worded(failure, f"{self.host.data.host_id}: connecting")
            self.context.run.failed(self.host.data.host_id, error)
            raise ConnectError(str(error)) from failure

    def _connect(self) -> None:
        to, name = self._destination(), self.host.data.host_id
        try:
            with self.opened(to, f"{name} at {to.address}", to.address, WatchedTransport, CONNECT_TIMEOUT) as client:
                self.take(client)
        except Stranger as error:
            raise Refused(str(error)) from error
        except Unwelcome as error:
            raise FleetError(str(error)) from error
        except OSError as error:
            raise FleetError(f"{name}: {error}") from error

    def _destination(self) -> Destination:
        """How the node is reached, as the operator's ssh_config has it. FleetError without a key to know it by."""
        data = self.host.data
        self.data["ssh_user"] = user = str(data.get("ssh_user") or "root")
        given = str(data.get("ssh_hostname") or "")
        port: int | None = data.get("ssh_port")  # that it is a number pyinfra has seen to
        if port is not None and not 0 < port < 65536:
            raise Usage(f"--data ssh_port={port}: that is not a port; write one up to 65535")
        names = tuple(dict.fromkeys(name for name in (data.node, given or data.address) if name))
        options = tuple(config_options(data.get("ssh_config_file")))
        config = Configuration(options, self.context.ssh_config, lambda names: None)
        way = config.way_to(names, user, port, address=names[-1])
        pinned = [str(data.host_key)] if data.get("host_key") else known_keys((*names, way.address), way.port)
        if not pinned:
            known_as = " or ".join(dict.fromkeys((*names, way.address)))
            raise Refused(
                f"{data.host_id}: no host key is known for {known_as}, and none is "
                "taken on trust; put the one that its console shows (`cat /etc/ssh/ssh_host_ed25519_key.pub`) into "
                "~/.ssh/known_hosts, or say --data host_key='ssh-ed25519 …'"
            )
        try:
            lines = [known_hosts_line([way.address], key, port=way.port) for key in pinned]
        except ValueError as error:
            raise FleetError(f"{data.host_id}: host_key: {error}") from None
        known = self.context.run.plain_directory / "known_hosts" / "nodes" / data.node
        write_whole(known, "\n".join(lines) + "\n")
        to = destination_of(way, user, known, data.get("ssh_key"))
        if not to.route.jumps:
            return to
        file = known.with_name(f"{data.node}.config")
        write_whole(file, to.text)
        return replace(to, config=file)

    @override
    def run_shell_command(self, command: StringCommand, *args: Any, **arguments: Any) -> tuple[bool, CommandOutput]:
        """OSError when the connection breaks: what was begun may go on there, and is looked at by the next run."""
        try:
            return super().run_shell_command(command, *args, **arguments)
        except DeadConnection as error:
            raise NotSent(f"{self.host.data.host_id}: {error}; nothing was sent") from error
        except (SSHException, EOFError) as error:
            raise OSError(f"{self.host.data.host_id}: the connection broke: {str(error) or 'no answer'}") from error

    @override
    def disconnect(self) -> None:
        self.leave()


def known_keys(names: tuple[str, ...], port: int) -> list[str]:
    """The keys that the operator's known_hosts have for any of these names, as `TYPE BLOB`. Refused for a revoked one.

    `ssh-keygen` looks them up: names may be hashed there.
    """
    found: list[str] = []
    for file in known_hosts_files():
        for name in dict.fromkeys(names) if file.is_file() else ():
            printed = run(["ssh-keygen", "-F", known_hosts_name(name, port), "-f", str(file)], check=False, timeout=10)
            for line in printed.stdout.splitlines():
                words = line.split()
                if not words or words[0].startswith("#") or words[0] == "@cert-authority":
                    continue
                if words[0] == "@revoked":
                    raise Refused(f"{file}: the host key of {name} is marked as revoked there")
                found.append(" ".join(words[1:3]))
    return list(dict.fromkeys(found))


_FACTS = "facts.proxmox_host."
_ONE = ("host_key", "ssh_hostname")


def nodes_beside(file: str, only: str = "*") -> dict[str, list[Entry]]:
    """The nodes as `@node/NAME`, in the group `nodes`. Their data are `context`, `host_id`, `node` and `address`.

    Nodes are logged in to by what is named here and nothing else: `exec`, other deploys and other facts end the
    program, and so does a run that names no node. `only` is one that `@node/NAME` names.
    """
    with or_end("reading the nodes", file) as (context, options, here):
        if context:
            check_words(options.get("operations") or ())
            check_data(parsed_data(options), NODE_DATA)
        definitions = Definitions.load(fleet_directory(here))
        nodes = nodes_of(definitions.fleet)
        if context:
            check_selection_of_nodes(nodes, {**options, **({} if only == "*" else {"limit": [only]})})
        fleet, run = definitions.fleet, Run(definitions.fleet.id)
        hypervisor = Hypervisor(fleet, expanded(token_file_of(here, options)), definitions)
        shared = Context.of(Evaluator(fleet, run, partial(Tree, fleet.path)), hypervisor)
        if context:
            for warning in fleet.warnings:
                say(warning, err=True)
            context.call_on_close(run.close)
            cli.put_right(context, shared)
    entries: list[Entry] = [
        (f"@node/{name}", {"context": shared, "host_id": f"node {name}", "node": name, "address": address})
        for name, address in nodes.items()
    ]
    return {"all": entries, "nodes": [f"@node/{name}" for name in nodes]}


def nodes_of(fleet: Fleet) -> dict[str, str]:
    """By name, where a node is: the endpoint's is taken to be at its address. Usage where no node is declared."""
    if fleet.endpoint is None:
        raise Usage(f"{DEFINITIONS}: proxmox: no node is declared; add host and node")
    named = dict.fromkeys((fleet.endpoint.node, *sorted(fleet.node_of(vm) for vm in fleet.vms.values())))
    return {name: fleet.endpoint.host.strip("[]") if name == fleet.endpoint.node else name for name in named}


def check_words(words: Sequence[str]) -> None:
    plain = [word for word in words if "=" not in word]
    files = declared(words)
    are_for_nodes = [bool(each) and all(file.for_nodes for file in each) for each in files.values()]
    if plain == ["debug-inventory"] or (are_for_nodes and all(are_for_nodes)):
        return
    if (
        plain[:1] == ["fact"]
        and plain[1:]
        and all(word.removeprefix("nixherd.").startswith(_FACTS) for word in plain[1:])
    ):
        return
    raise Usage(
        f"{' '.join(words)}: nodes.py is for deploys/proxmox_host.py and for facts of {_FACTS.rstrip('.')} alone; "
        "a node of the hypervisor is logged in to for nothing else"
    )


def check_selection_of_nodes(nodes: dict[str, str], options: dict[str, Any]) -> None:
    names: dict[str, list[str]] = {"all": list(nodes), "nodes": list(nodes)}
    limit = [part for word in options.get("limit") or () for part in word.split(",")]
    if not limit and options.get("operations") and tuple(options["operations"]) != ("debug-inventory",):
        raise Usage(f"which node? Say --limit {next(iter(nodes))} (there are: {', '.join(nodes)})")
    selected = check_selection(limit, names, "--limit") if limit else set()
    if len(selected) > 1 and (given := [name for name in _ONE if data_said(options, name)]):
        raise Usage(f"--data {given[0]} is one node's, but several are selected; add --limit NODE")

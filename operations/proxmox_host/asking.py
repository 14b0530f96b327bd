"""What is asked of a node, and how: nothing is done on what is not known."""

import shlex
from typing import Any

from pyinfra import host
from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host

from nixherd.base.errors import FleetError, Refused, Usage
from nixherd.base.reasons import failure
from nixherd.facts.proxmox_host import Dkms, Node
from nixherd.proxmox.node.kernel import version_of
from nixherd.proxmox.node.passthrough import Passthrough, read
from nixherd.proxmox.node.states import LOG, NodeState
from nixherd.pyinfra_glue.node import NodeConnector

LONG = 3600  # seconds for what builds modules and initramfs
_KEYS = ("devices", "vendor_reset", "blacklist", "kernel_words", "hostpci")
# It ends what it began when nobody listens any more.
_LOGGED = """trap '' HUP PIPE
umask 022
{{
set -e
{script}
}} >>{log} 2>&1 </dev/null
"""


def settings_of(host: Host) -> Passthrough:
    """Return what the operator asks of this node. Usage where that cannot be meant."""
    return read({key: host.data.get(key) for key in _KEYS})


def require_node(host: Host) -> None:
    """Usage for a host that nodes.py did not make, which is never a node."""
    if not isinstance(host.connector, NodeConnector):
        raise Usage(f"{host.name} is not a node; run pyinfra nodes.py deploys/proxmox_host.py --limit NODE")


def ask(fact: Any, **arguments: Any) -> Any:
    """Return a fact of the node. FleetError where the node does not answer: nothing is done on what is not known."""
    value = host.get_fact(fact, **arguments, _timeout=120, _ignore_errors=True)
    if value is None:
        raise FleetError(f"{host.data.node} did not answer {fact.__name__}; run this again")
    return value


def node_of_host() -> NodeState:
    """Return what the node is. Refused where it is another machine, runs another system, or we are not root there."""
    node: NodeState = ask(Node)
    name = host.data.node
    if node["id"] != "debian" and node["pve"] is None:
        runs = node["id"] or "something unknown"
        raise Refused(f"{name}: what answers runs {runs}, not Debian or Proxmox VE; nothing was done")
    if node["hostname"].split(".")[0] != name:
        raise Refused(
            f"{name}: what answers calls itself {node['hostname']}; nothing was done: name the node that it is, or say "
            f"--data ssh_hostname= where {name} is"
        )
    if node["uid"] != 0:
        raise Refused(f"{name}: we are not root there; say --data ssh_user=root")
    return node


def source_version(source: str) -> str:
    """Return the version that the source of vendor-reset declares."""
    return version_of(ask(Dkms, source=source)["conf"], source)


def run_there(program: str, *, what: str, stdin: str | None = None, timeout: int = 120) -> str:
    """Run a script on the node. FleetError that says why when it fails."""
    given: dict[str, Any] = {"_stdin": [stdin.removesuffix("\n")]} if stdin is not None else {}
    ok, output = host.run_shell_command(StringCommand(program), _timeout=timeout, **given)
    if not ok:
        lines = output.stderr_lines or output.stdout_lines
        error = failure(f"{host.data.node}: {what} failed", lines)
        ours = lines[-1].strip() if lines else ""  # a script of ours ends with what it took back
        raise error if ours in str(error) else FleetError(f"{error}; {ours}") from error
    return str(output.stdout)


def run_logged(program: str, *, what: str) -> None:
    """Run what takes long, to its end even when the connection breaks; its words are in LOG on the node."""
    body = _LOGGED.format(script=program, log=LOG)
    run_there(
        f"sh -c {shlex.quote(body)} || {{ status=$?; tail -n 40 {LOG} >&2; exit $status; }}", what=what, timeout=LONG
    )

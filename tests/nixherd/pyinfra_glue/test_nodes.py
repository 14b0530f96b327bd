"""nodes.py: which nodes there are, for what they are logged in to, and by which key they are known."""

import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.command import StringCommand
from pyinfra.connectors.ssh import SSHConnector

from nixherd.base.errors import NotSent, Refused, Usage
from nixherd.base.ssh_keys import generate_ed25519, known_hosts_line
from nixherd.link.client import DeadConnection
from nixherd.pyinfra_glue.node import NodeConnector, check_selection_of_nodes, check_words, known_keys, nodes_of
from tests.nixherd.proxmox.fleets import DEV, FLEET

NODES = {"prom": "192.0.2.1", "other": "other"}


def test_the_nodes_that_the_definitions_name() -> None:
    assert FLEET.endpoint is not None
    fleet = replace(FLEET, vms={"dev": replace(DEV, node="other")})
    assert nodes_of(fleet) == {FLEET.endpoint.node: FLEET.endpoint.host, "other": "other"}
    with pytest.raises(Usage, match="no node is declared"):
        nodes_of(replace(FLEET, endpoint=None))


def test_for_one_deploy_and_its_facts() -> None:
    for words in (
        ["deploys/proxmox_host.py"],
        ["./deploys/proxmox_host.py"],
        ["fact", "facts.proxmox_host.Dkms", "source=/usr/src/vendor-reset"],
        ["debug-inventory"],
    ):
        check_words(words)
    for words in (
        ["exec", "--", "true"],
        ["deploys/provision.py"],
        ["deploys/proxmox_host.py", "deploys/reboot.py"],
        ["fact", "facts.nixos.Running"],
        ["fact", "facts.proxmox_host.Boot", "facts.machine.Machine"],
        ["operations.proxmox_host.vfio"],
        ["server.reboot"],
        ["fact"],
        [],
    ):
        with pytest.raises(Usage, match="logged in to for nothing else"):
            check_words(words)


def test_one_is_named() -> None:
    deploy = ["deploys/proxmox_host.py"]
    check_selection_of_nodes(NODES, {"operations": deploy, "limit": ["prom"]})
    check_selection_of_nodes(NODES, {"operations": deploy, "limit": ["prom,other"]})
    check_selection_of_nodes(NODES, {"operations": ["debug-inventory"]})
    with pytest.raises(Usage, match=r"which node\? Say --limit prom \(there are: prom, other\)"):
        check_selection_of_nodes(NODES, {"operations": deploy})
    with pytest.raises(Usage, match="no host or group has this name"):
        check_selection_of_nodes(NODES, {"operations": deploy, "limit": ["dev"]})
    with pytest.raises(Usage, match="--data host_key is one node's"):
        check_selection_of_nodes(NODES, {"operations": deploy, "limit": ["nodes"], "data": ["host_key=x"]})


def test_keys_of_known_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    file = tmp_path / ".ssh" / "known_hosts"
    one, two, ca = (generate_ed25519(name).public for name in ("one", "two", "ca"))
    lines = [known_hosts_line("prom.test", one), known_hosts_line("192.0.2.9", two, port=2222)]
    file.write_text("\n".join([*lines, f"@cert-authority *.test {' '.join(ca.split()[:2])}"]) + "\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)  # names are hashed
    assert "192.0.2.9" not in file.read_text()
    assert known_keys(("prom.test", "192.0.2.9"), 22) == [" ".join(one.split()[:2])]
    assert known_keys(("192.0.2.9",), 2222) == [" ".join(two.split()[:2])]
    assert known_keys(("elsewhere.test.invalid",), 22) == []
    file.write_text(f"@revoked {lines[0]}\n")
    with pytest.raises(Refused, match=r"the host key of prom\.test is marked as revoked"):
        known_keys(("prom.test",), 22)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            DeadConnection("the connection broke: timed out"),
            "node prom: the connection broke: timed out; nothing was sent",
        ),
        (EOFError(), "node prom: the connection broke: no answer"),
    ],
)
def test_what_was_not_sent_is_told_from_what_may_go_on(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def broken(*args: Any, **arguments: Any) -> None:
        raise error

    monkeypatch.setattr(SSHConnector, "run_shell_command", broken)
    connector: Any = object.__new__(NodeConnector)
    connector.host = SimpleNamespace(data=SimpleNamespace(host_id="node prom"))
    with pytest.raises(OSError) as raised:
        connector.run_shell_command(StringCommand("true"))
    assert (str(raised.value), isinstance(raised.value, NotSent)) == (words, isinstance(error, DeadConnection))

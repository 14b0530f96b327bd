"""Where a machine is, is somebody's word: a table that lies costs a look at another machine's key, and no more."""

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pyinfra.api.host import Host

from nixherd.base.ssh_keys import generate_ed25519
from nixherd.fleet.models import Device
from nixherd.locate import neighbours
from tests.judged import find
from tests.nixherd.conftest import base_root, operator_key, sshd  # noqa: F401  (fixtures)
from tests.nixherd.fleet.test_validate import DEFINITIONS, HOSTS
from tests.nixherd.proxmox.conftest import Emulator, emulator, started  # noqa: F401
from tests.nixherd.pyinfra_glue.connector.conftest import connector_of
from tests.runs import Said, connected, executing, said_by, shared_at
from tests.shared import Shared
from tests.sshd import MAC, Sshd

pytestmark = pytest.mark.xdist_group("emulator")


@pytest.fixture
def shared(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:  # noqa: F811
    """`dev` is installed and nobody knows where; `metal` is asked for its neighbours, and there is no hypervisor."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(neighbours, "_ours", tuple)
    # loopback is not an address that others can reach
    monkeypatch.setattr(neighbours, "usable_address", lambda text: ipaddress.ip_address(text) if text else None)
    shared = shared_at(emulator, tmp_path)
    shared.token_file.unlink()
    return shared


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Said:
    return said_by(caplog)


@pytest.fixture
def run(shared: Shared, sshd: Sshd) -> Callable[[], Host]:  # noqa: F811
    return lambda: connected(shared, beside=("metal",), ssh_port=sshd.port, ssh_key=str(sshd.key), must_answer=True)


def test_a_table_that_lies_costs_a_look_at_another_key(
    run: Callable[[], Host],
    shared: Shared,
    sshd: Sshd,  # noqa: F811
    messages: Said,
    tmp_path: Path,
) -> None:
    """It names another machine first, and hostile words; the pinned key decides, and the machine is found."""
    dev, metal = generate_ed25519("dev"), generate_ed25519("metal")
    hosts, vm, endpoint = shared.fleet.hosts, shared.fleet.vms["dev"], shared.fleet.endpoint
    assert endpoint is not None
    card = replace(vm.settings, networks=(Device("net0", {"macaddr": MAC}),))
    shared.fleet = replace(
        shared.fleet,
        hosts={
            "dev": replace(hosts["dev"], public_key=dev.public, hostname="dev.invalid", ssh_alias=None),
            "metal": replace(hosts["metal"], public_key=metal.public, addresses=("127.0.0.2",)),
        },
        vms={"dev": replace(vm, settings=card)},
        endpoint=replace(endpoint, neighbours=("metal",)),
    )
    lies = ["127.0.0.4", "-oProxyCommand=touch${IFS}/tmp/x", "127.0.0.9;reboot", "\x1b[31m", "127.0.0.5"]
    leases = "".join(f"0 {MAC} {each} dev *\\n" for each in lies)
    sshd.start(
        metal, address="127.0.0.2", setup=f"mkdir -p /var/lib/misc; echo '{leases}' >/var/lib/misc/dnsmasq.leases"
    )
    other = Sshd(sshd.base, tmp_path / "other", sshd.port, sshd.key)
    other.directory.mkdir()
    try:
        other.start(generate_ed25519("somebody"), address="127.0.0.4")
        sshd.start(dev, address="127.0.0.5", system="ID=nixos")
        host = run()
        place = connector_of(host).place
        assert place is not None
        assert (place.address, place.host_key) == ("127.0.0.5", dev.public)
        assert executing(host).run_shell_command("echo here")[1].stdout == "here"
        assert not other.contacted, "nothing was sent to it, no login either"
    finally:
        other.kill()
    told = [line for line in messages() if "without the hypervisor" in line]
    assert len(told) == 1
    assert "which cannot be asked: token file" in told[0]


def test_no_network_is_searched_that_is_not_somebodys_own_and_small() -> None:
    """Whoever can push a commit has us knock at private networks of 1022 addresses at most, and at no others."""
    for network in ("0.0.0.0/0", "10.0.0.0/8", "1.1.1.0/24", "203.0.113.0/24", "224.0.0.0/24", "169.254.169.0/24"):
        definitions = {**DEFINITIONS, "proxmox": {**DEFINITIONS["proxmox"], "discover": network}}
        assert [finding for finding in find(HOSTS, definitions) if not finding.is_warning], network

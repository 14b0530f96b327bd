"""Facts of the hypervisor, through a run's own connector and the emulator's API: no machine is asked."""

from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import FactProcessError, PyinfraError
from pyinfra.api.facts import get_fact

from nixherd.base.errors import Exit
from nixherd.facts import proxmox
from nixherd.fleet.models import VmidRange
from tests.nixherd.proxmox.conftest import Emulator, emulator, started  # noqa: F401  (fixtures)
from tests.nixherd.proxmox.dev import MAC, begin
from tests.runs import connected, shared_at
from tests.shared import Shared

pytestmark = pytest.mark.xdist_group("emulator")


@pytest.fixture
def shared(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:  # noqa: F811
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return shared_at(emulator, tmp_path)


def fact(shared: Shared, which: type, host_id: str = "dev", **arguments: Any) -> Any:
    host = connected(shared, host_id, api_only=True)
    assert host.connected
    return get_fact(host.state, host, which, kwargs=arguments)


def test_what_the_hypervisor_says_of_a_guest(shared: Shared, emulator: Emulator) -> None:  # noqa: F811
    begin(emulator, status="running")
    status = fact(shared, proxmox.VmStatus)
    assert (status["vmid"], status["name"], status["node"], status["status"]) == (110, "dev", "prom", "running")
    assert fact(shared, proxmox.VmConfig)["cores"] == 4
    assert fact(shared, proxmox.VmPending) == []
    emulator.client().set_config("prom", 110, {"cores": 2})
    assert fact(shared, proxmox.VmPending) == [{"key": "cores", "before": "4", "after": "2"}]
    assert fact(shared, proxmox.VmSnapshots) == []
    assert fact(shared, proxmox.VmBackups) == []
    assert fact(shared, proxmox.VmBackups, storage="local") == []
    assert fact(shared, proxmox.VmTasks) == []
    assert {each["name"] for each in fact(shared, proxmox.Storages)} == {"nvmeprom", "local", "tank"}
    volumes = fact(shared, proxmox.StorageContent, storage="nvmeprom", content="images")
    assert "nvmeprom:vm-110-disk-0" in {each["volid"] for each in volumes}
    assert emulator.changes() == ["PUT /nodes/prom/qemu/110/config"]


CARD = {"name": "ens18", "hardware-address": MAC.lower(), "ip-addresses": [{"ip-address": "10.0.0.5"}]}


@pytest.mark.parametrize(
    ("event", "address"),
    [
        ({"do": "guest-booted", "guest": {"interfaces": [CARD]}}, "10.0.0.5"),
        ({"do": "guest-booted", "guest": {"interfaces": [{**CARD, "ip-addresses": []}]}}, "none"),
        ({"do": "stop-agent"}, "unknown"),
    ],
    ids=["address", "without", "silent"],
)
def test_no_address_and_an_unknown_one_are_two_things(
    shared: Shared,
    emulator: Emulator,  # noqa: F811
    event: dict[str, Any],
    address: str,
) -> None:
    begin(emulator)
    emulator.control("outside", vmid=110, **event)
    assert fact(shared, proxmox.VmAddress) == address


@pytest.mark.parametrize("config", [{"status": "stopped"}, {"agent": None}], ids=["off", "agentless"])
def test_the_address_of_a_guest_without_an_agent_is_unknown(
    shared: Shared,
    emulator: Emulator,  # noqa: F811
    config: dict[str, Any],
) -> None:
    begin(emulator, **config)
    assert fact(shared, proxmox.VmAddress) == "unknown"


EVERY = [
    *(proxmox.VmStatus, proxmox.VmConfig, proxmox.VmPending, proxmox.VmSnapshots, proxmox.VmBackups),
    *(proxmox.VmAddress, proxmox.VmTasks),
]


@pytest.mark.parametrize("which", EVERY)
@pytest.mark.parametrize("host_id", ["dev", "metal"])
def test_a_guest_that_is_not_there_is_unknown(
    shared: Shared,
    emulator: Emulator,  # noqa: F811
    which: type,
    host_id: str,
) -> None:
    assert fact(shared, which, host_id) is None
    assert which().default() is None


def test_a_free_vmid_is_a_proposal(shared: Shared, emulator: Emulator) -> None:  # noqa: F811
    object.__setattr__(shared.fleet, "ranges", (VmidRange("production", 104, 199),))
    assert fact(shared, proxmox.NextVmid) == 105
    with pytest.raises(PyinfraError, match="No hosts remaining"):
        fact(shared, proxmox.NextVmid, range="nosuch")
    assert shared.run.failures == {"dev": Exit.USAGE}


@pytest.mark.parametrize(
    ("which", "output"),
    [(proxmox.VmStatus, "[]"), (proxmox.VmTasks, "{}"), (proxmox.NextVmid, '"100"'), (proxmox.VmConfig, "no JSON")],
)
def test_what_cannot_be_read_is_an_error(which: Any, output: str) -> None:
    with pytest.raises(FactProcessError, match="expected "):
        which().process([output])


def test_the_query_reads_like_the_command_that_shows_the_same() -> None:
    assert str(proxmox.VmBackups().command(storage="local")) == "nixherd vm backups local"

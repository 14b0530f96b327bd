"""A VM's address: net0's, whatever else the guest has."""

import pytest

from fleetwright.errors import DeadlineExceeded
from fleetwright.proxmox.address import address_of, wait_for_address
from fleetwright.proxmox.errors import AgentUnavailable
from fleetwright.proxmox.models import Interface, VmConfig

pytestmark = pytest.mark.unit

CONFIG = VmConfig({"net0": "virtio=BC:24:11:7F:56:51,bridge=vmbr0", "net1": "virtio=BC:24:11:7F:56:52,bridge=vmbr0"})
LOOPBACK = Interface("lo", "00:00:00:00:00:00", ("127.0.0.1", "::1"))
DOCKER = Interface("docker0", "02:42:aa:bb:cc:dd", ("172.17.0.1",))
OTHER = Interface("ens19", "bc:24:11:7f:56:52", ("198.51.100.9",))


def net0(*addresses: str) -> Interface:
    return Interface("ens18", "bc:24:11:7f:56:51", addresses)


@pytest.mark.parametrize(
    ("interfaces", "address"),
    [
        ([LOOPBACK, DOCKER, OTHER, net0("10.77.0.100")], "10.77.0.100"),
        ([LOOPBACK, DOCKER, net0("fe80::1", "2001:db8::9", "10.77.0.100")], "10.77.0.100"),
        ([net0("fe80::1", "169.254.3.4", "2001:db8::9")], "2001:db8::9"),
        ([net0("fe80::1%ens18", "169.254.3.4")], None),
        ([net0("127.0.0.1", "0.0.0.0", "", "garbage")], None),
        ([net0()], None),
        (
            [net0(), Interface("br0", "bc:24:11:7f:56:51", ("10.77.0.101",))],
            "10.77.0.101",
        ),  # a bridge has its port's MAC
        ([LOOPBACK, DOCKER, OTHER], None),
        ([], None),
    ],
)
def test_the_address_of_net0(interfaces: list[Interface], address: str | None) -> None:
    assert address_of(CONFIG, interfaces) == address


def test_without_a_mac_nothing_is_guessed() -> None:
    assert address_of(VmConfig({"net0": "virtio,bridge=vmbr0"}), [Interface("ens18", None, ("10.77.0.1",))]) is None
    assert address_of(VmConfig({}), [net0("10.77.0.1")]) is None


class Guest:
    """A client whose guest answers in turn; the last answer stays."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def config(self, node: str, vmid: int) -> VmConfig:
        return CONFIG

    def agent_interfaces(self, node: str, vmid: int) -> object:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_waits_until_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    told: list[str] = []
    guest = Guest(AgentUnavailable("QEMU guest agent is not running", 500), [LOOPBACK], [net0("10.77.0.100")])
    assert wait_for_address(guest, "prom", 110, 5, told.append) == "10.77.0.100"  # type: ignore[arg-type]
    assert told == ["QEMU guest agent is not running", "the interface with net0's MAC has no address"]


def test_the_deadline_says_what_was_missing() -> None:
    guest = Guest(AgentUnavailable("QEMU guest agent is not running", 500))
    with pytest.raises(DeadlineExceeded, match="no address within 0 s: QEMU guest agent is not running"):
        wait_for_address(guest, "prom", 110, 0)  # type: ignore[arg-type]

"""A VM's address: net0's, whatever else the guest has."""

import pytest

from nixherd.proxmox.answers import Interface
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest.identity import address_of

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
        ([net0("224.0.0.1", "255.255.255.255", "0.1.2.3", "240.0.0.1", "ff02::1", "::", "::ffff:127.0.0.1")], None),
        ([net0("::ffff:10.77.0.100")], "10.77.0.100"),
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

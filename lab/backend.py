"""What stands behind the VMIDs of the API emulator: states only, or real machines.

The emulator decides what the API says; a backend does what a hypervisor would do with disks and power.
All calls block and may come from any thread; the emulator holds the VM's lock while it calls.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class BackendError(Exception):
    """What failed, in the words that belong into the task's exit status."""


class AgentAbsent(Exception):
    """The guest's agent does not answer (now)."""


class AgentError(Exception):
    """The guest's agent answered with an error; its text."""


class Backend(Protocol):
    """Volumes are named by volid (`nvmeprom:vm-110-disk-0`), sizes are bytes."""

    def create_volume(self, volid: str, size: int) -> None: ...

    def clone_volume(self, source: str, target: str, size: int) -> None:
        """Copy a volume whole; a linked clone is, from outside, the same."""

    def resize_volume(self, volid: str, size: int) -> None: ...

    def rename_volume(self, source: str, target: str) -> None:
        """Give it another name; a machine that uses it goes on using it."""

    def delete_volume(self, volid: str) -> None:
        """A volume that is not there is not an error."""

    def start(self, vmid: int, config: Mapping[str, Any], cloudinit: Mapping[str, str] | None) -> None:
        """Switch the machine on; returns when it has power, long before it is booted.

        `config` is the VM's effective configuration (drives, net0 with its MAC, bios, memory). `cloudinit`
        holds the drive's files (`user-data`, `meta-data`, `network-config`), None without such a drive.
        """

    def resume_guest(self, vmid: int, agent: bool) -> None:
        """The machine that was just switched on goes on from a saved memory; `agent`: its agent ran then.

        A backend that cannot do that lets it boot.
        """

    def stop(self, vmid: int) -> None:
        """Pull the plug; returns when the machine is off. Off already is not an error."""

    def shutdown(self, vmid: int, timeout: float, check: Callable[[], None]) -> bool:
        """Ask the guest to power off; True when it is off within `timeout` seconds.

        `check` is called while that is waited for; what it raises ends the wait.
        """

    def reset(self, vmid: int) -> None:
        """Pull the plug and boot again."""

    def running(self, vmid: int) -> bool: ...

    def agent(self, vmid: int, command: str, params: Mapping[str, Any]) -> Any:
        """What the guest's agent answers to `command` (`ping`, `exec`, `network-get-interfaces`, …).

        Returns the value below `result` in the API's answer. Raises AgentAbsent, AgentError.
        """

    def fault(self, name: str, on: bool, params: Mapping[str, Any]) -> bool:
        """Switch a fault of the machines on or off; False when it is not one of theirs."""

    def reset_all(self) -> None:
        """Back to the state at the start: every machine off, every volume as it was."""

    def on_power_off(self, callback: Callable[[int], None]) -> None:
        """Call `callback(vmid)` when a guest has switched itself off."""

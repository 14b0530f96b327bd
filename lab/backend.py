"""The interface behind the API emulator's VMIDs: states only, or real machines.

The emulator decides what the API answers; a backend does what a hypervisor does with disks and power. All calls block
and may come from any thread; the emulator holds the VM's lock during each call.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class BackendError(Exception):
    """A failed action, with the text for the task's exit status."""


class AgentAbsent(Exception):
    """The guest's agent does not answer at the moment."""


class AgentError(Exception):
    """The guest's agent answered with an error; its text."""


class Backend(Protocol):
    """Volumes are named by volid (`nvmeprom:vm-110-disk-0`), sizes are bytes."""

    def create_volume(self, volid: str, size: int) -> None: ...

    def clone_volume(self, source: str, target: str, size: int) -> None:
        """Copy a volume in full; seen from outside, a linked clone is the same."""

    def resize_volume(self, volid: str, size: int) -> None: ...

    def rename_volume(self, source: str, target: str) -> None:
        """Rename a volume; a machine that uses it keeps using it."""

    def delete_volume(self, volid: str) -> None:
        """Delete a volume; a missing one is not an error."""

    def start(self, vmid: int, config: Mapping[str, Any], cloudinit: Mapping[str, str] | None) -> None:
        """Switch the machine on; return when it has power, long before it has booted.

        `config` is the VM's effective configuration (drives, net0 with its MAC, bios, memory). `cloudinit` holds the
        drive's files (`user-data`, `meta-data`, `network-config`), None without such a drive.
        """

    def resume_guest(self, vmid: int, agent: bool) -> None:
        """Resume the machine that was just switched on from a saved memory; `agent`: whether its agent was running.

        A backend that does not support this lets it boot.
        """

    def stop(self, vmid: int) -> None:
        """Switch off immediately; return when the machine is off. A machine that is already off is not an error."""

    def shutdown(self, vmid: int, timeout: float, check: Callable[[], None]) -> bool:
        """Ask the guest to power off; return True when it is off within `timeout` seconds.

        `check` is called during the wait; an exception from it ends the wait.
        """

    def reset(self, vmid: int) -> None:
        """Switch off immediately and boot again."""

    def running(self, vmid: int) -> bool: ...

    def agent(self, vmid: int, command: str, params: Mapping[str, Any]) -> Any:
        """Return the guest agent's answer to `command` (`ping`, `exec`, `network-get-interfaces`, …).

        Returns the value of `result` in the API's answer. Raises AgentAbsent, AgentError.
        """

    def fault(self, name: str, on: bool, params: Mapping[str, Any]) -> bool:
        """Switch a fault of the machines on or off; return False if the machines do not have it."""

    def reset_all(self) -> None:
        """Restore the start state: every machine off, every volume as at the start."""

    def on_power_off(self, callback: Callable[[int], None]) -> None:
        """Call `callback(vmid)` when a guest has switched itself off."""

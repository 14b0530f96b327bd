"""Switching guests on and off."""

from pyinfra import host
from pyinfra.api import operation

from nixherd.proxmox.guest import actions
from nixherd.proxmox.guest.plan import SHUTDOWN_SECONDS
from nixherd.seconds import LONGEST
from operations.arguments import flag_of, whole
from operations.proxmox.acting import act
from operations.proxmox.provisioning import start
from operations.steps import Commands

__all__ = ["reboot", "resume", "shutdown", "start", "stop", "suspend"]


def _seconds(timeout: int) -> int:
    return whole("timeout", timeout, 1, LONGEST)


@operation()
def stop() -> Commands:
    """Pull the plug."""
    yield from act(host, actions.stop)


@operation()
def shutdown(timeout: int = SHUTDOWN_SECONDS, force: bool = False) -> Commands:
    """Ask the guest to power off: its agent, else ACPI. `force` pulls the plug after `timeout` seconds."""
    yield from act(host, lambda: actions.shutdown(timeout=_seconds(timeout), force=flag_of("force", force)))


@operation(is_idempotent=False)
def reboot(always: bool = False, timeout: int = SHUTDOWN_SECONDS) -> Commands:
    """Reboot the guest when options wait for that; `always` also when none does."""
    yield from act(host, lambda: actions.reboot(timeout=_seconds(timeout), always=flag_of("always", always)))


@operation()
def suspend(to_disk: bool = False) -> Commands:
    """Pause the guest, or write its memory to disk and switch it off."""
    yield from act(host, lambda: actions.suspend(to_disk=flag_of("to_disk", to_disk)))


@operation()
def resume() -> Commands:
    """Let a paused or suspended guest go on."""
    yield from act(host, actions.resume)

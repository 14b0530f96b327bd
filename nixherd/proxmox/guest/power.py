"""Verbs that switch guests on and off."""

from dataclasses import dataclass

from nixherd.arguments import SECONDS
from nixherd.errors import Usage
from nixherd.proxmox.guest import reboots
from nixherd.proxmox.guest.plan import SHUTDOWN_SECONDS
from nixherd.proxmox.guest.verb import Guest, Verb, flag, option
from nixherd.proxmox.steps import (
    AwaitReboot,
    Reboot,
    Resume,
    Row,
    Shutdown,
    Start,
    Steps,
    Stop,
    Suspend,
    nothing,
)


@dataclass(frozen=True)
class Switch(Verb):
    """A switch of power. A guest that is seen to be off in the middle of a reboot does not count as off."""

    def look(self, guest: Guest) -> Steps:
        actual, vm = guest.actual, guest.vm
        is_off = actual is not None and not actual.running
        if actual and is_off and (upid := reboots.under_way(guest.client, actual.node, vm.vmid)):
            return (AwaitReboot(guest.ours.node, vm.vmid, upid, type=vm.type),)
        return self.switch(guest)

    def switch(self, guest: Guest) -> Steps:
        """The steps for a guest that is not in the middle of a reboot."""
        raise NotImplementedError


@dataclass(frozen=True)
class StartGuest(Switch):
    """Switch a guest on; a paused one goes on."""

    name = command = verb = "start"
    row = Row.START

    def switch(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        if seen.running:
            return (Resume(seen.node, vm.vmid, type=vm.type),) if seen.paused else nothing("it runs")
        return (Start(seen.node, vm.vmid, type=vm.type),)


@dataclass(frozen=True)
class StopGuest(Switch):
    """Pull the plug."""

    name = command = verb = "stop"

    def switch(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        return (Stop(seen.node, vm.vmid, type=vm.type),) if seen.running else nothing("it does not run")


@dataclass(frozen=True)
class ShutdownGuest(Switch):
    """Ask a guest to power off: its agent, else ACPI.

    `force` pulls the plug after `timeout` seconds, and only then.
    """

    name = command = "shutdown"
    verb = "shut down"
    timeout: int = option(SECONDS, SHUTDOWN_SECONDS)
    force: bool = flag("Pull the plug when the time is over.")

    def switch(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        if not seen.running:
            return nothing("it does not run")
        if seen.paused and not self.force:
            raise Usage(f"{guest.label} is paused and cannot shut down; resume it first, or stop it")
        return (Shutdown(seen.node, vm.vmid, self.timeout, self.force, type=vm.type),)


@dataclass(frozen=True)
class RebootGuest(Switch):
    """Shut a guest down and start it again; options that wait take effect.

    `always`: also when none waits.
    """

    name = command = verb = "reboot"
    idempotent = False
    always: bool = flag("Only when options wait for it.", option="--if-pending", negated=True)
    timeout: int = option(SECONDS, SHUTDOWN_SECONDS)

    def switch(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        if not seen.running:
            if self.always and seen.config.lock == "suspended":
                raise Usage(f"{guest.label} is suspended to disk and does not run; resume it")
            if self.always:
                raise Usage(f"{guest.label} does not run; start it")
            return nothing("it does not run, so that nothing waits for a reboot")
        waiting = tuple(each.key for each in seen.pending)
        if not (waiting or self.always):
            return nothing("nothing waits for a reboot")
        if seen.paused:
            raise Usage(
                f"{guest.label} is paused and cannot shut down for a reboot; resume it first, or stop and start it"
            )
        return (Reboot(seen.node, vm.vmid, self.timeout, waiting, type=vm.type),)


@dataclass(frozen=True)
class SuspendGuest(Verb):
    """Pause a guest, or write its memory to disk and switch it off."""

    name = command = verb = "suspend"
    to_disk: bool = flag("Write its memory to disk and switch it off.")

    def look(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        if seen.config.lock == "suspended" or (seen.paused and not self.to_disk):
            return nothing("it is suspended to disk" if seen.config.lock else "it is paused")
        if not seen.running:
            raise Usage(f"{guest.label} does not run; there is nothing to suspend")
        return (Suspend(seen.node, vm.vmid, self.to_disk, type=vm.type),)


@dataclass(frozen=True)
class ResumeGuest(Verb):
    """Let a paused or suspended guest go on."""

    name = command = verb = "resume"

    def look(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        if seen.config.lock == "suspended":
            return (Start(seen.node, vm.vmid, type=vm.type),)
        if seen.running:
            resume = (Resume(seen.node, vm.vmid, type=vm.type),)
            return resume if seen.paused else nothing("it runs and is not paused")
        raise Usage(f"{guest.label} does not run and is not suspended; start it")

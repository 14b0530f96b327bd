"""Switching guests on and off."""

from collections.abc import Mapping
from dataclasses import dataclass

from nixherd.proxmox.answers import VmStatus
from nixherd.proxmox.route import Effect, Kind, Parameters, Requests, on_guests
from nixherd.proxmox.steps.base import Await, Row, Step


def _switch(
    verb: str, parameters: Parameters | None = None, *, vm: Parameters | None = None, trial: bool = False
) -> Requests:
    return on_guests("POST", f"/status/{verb}", Effect.POWER, parameters, vm=vm, trial=trial)


@dataclass(frozen=True, slots=True)
class Power(Step):
    """A switch of power, which is done when the guest stands where it was meant to."""


@dataclass(frozen=True, slots=True)
class Start(Power):
    """Switch the guest on, also from a suspension to disk."""

    row = Row.START
    requests = _switch("start", trial=True)

    def is_reached(self, status: VmStatus) -> bool:
        return status.running and not status.paused

    def __str__(self) -> str:
        return f"start {self.guest}"


@dataclass(frozen=True, slots=True)
class Stop(Power):
    """Pull the plug."""

    interrupts = True
    requests = _switch("stop", vm={"timeout": Kind.INTEGER}, trial=True)

    def is_reached(self, status: VmStatus) -> bool:
        return not status.running

    def __str__(self) -> str:
        return f"stop {self.guest} at once"


@dataclass(frozen=True, slots=True)
class Shutdown(Power):
    """Ask the guest (its agent, else ACPI) to power off; `force`: pull the plug after `timeout` seconds."""

    timeout: int
    force: bool = False
    interrupts = True
    requests = _switch("shutdown", {"timeout": Kind.INTEGER, "forceStop": Kind.BOOLEAN})

    def is_reached(self, status: VmStatus) -> bool:
        return not status.running

    def parameters(self) -> Mapping[str, object]:
        return {"timeout": self.timeout, "forceStop": self.force}

    def __str__(self) -> str:
        then = ", pull the plug then" if self.force else ""
        return f"shut {self.guest} down within {self.timeout} s{then}"


@dataclass(frozen=True, slots=True)
class Reboot(Power):
    """Shut the guest down and start it again; `because` names the options that wait for it."""

    timeout: int
    because: tuple[str, ...] = ()
    interrupts = True
    repeatable = False
    task_types = ("qmreboot", "vzreboot")
    requests = _switch("reboot", {"timeout": Kind.INTEGER})

    def parameters(self) -> Mapping[str, object]:
        return {"timeout": self.timeout}

    def __str__(self) -> str:
        why = f" so that {', '.join(self.because)} take effect" if self.because else ""
        return f"reboot {self.guest}{why}"


@dataclass(frozen=True, slots=True)
class AwaitReboot(Await):
    """The guest is off in the middle of a reboot, and about to be started again: wait for that."""

    def __str__(self) -> str:
        return f"wait for the reboot of {self.guest} that is under way"


@dataclass(frozen=True, slots=True)
class Suspend(Power):
    """Pause the guest, or write its memory to disk and switch it off."""

    to_disk: bool = False
    interrupts = True
    requests = _switch("suspend", vm={"todisk": Kind.BOOLEAN, "statestorage": Kind.STORAGE})

    def is_reached(self, status: VmStatus) -> bool:
        if self.to_disk:
            return status.lock == "suspended" and not status.running
        return status.running and status.paused

    def parameters(self) -> Mapping[str, object]:
        return {"todisk": True} if self.to_disk else {}

    def __str__(self) -> str:
        return f"suspend {self.guest}{' to disk' if self.to_disk else ''}"


@dataclass(frozen=True, slots=True)
class Resume(Power):
    """Let a paused guest go on."""

    row = Row.START
    requests = _switch("resume")

    def is_reached(self, status: VmStatus) -> bool:
        return status.running and not status.paused

    def __str__(self) -> str:
        return f"resume {self.guest}"

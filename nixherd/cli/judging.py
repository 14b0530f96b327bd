"""How guests differ from their definitions, as `vm diff` and `vm apply` say it: one judgement, words and JSON alike."""

from collections.abc import Iterable
from typing import Any

from nixherd.cli.output import narrate
from nixherd.models import Vm
from nixherd.proxmox.guest.identity import label
from nixherd.proxmox.steps import Cannot, Note, Step


def difference(vm: Vm, step: Step) -> dict[str, Any]:
    """A step that is left to do as `{"difference", "remedy", "interrupts"}`."""
    kind = "by hand" if isinstance(step, Cannot) else "left alone" if vm.readonly else "apply"
    return {"difference": str(step), "remedy": kind, "interrupts": step.interrupts}


def differing(vm: Vm, steps: Iterable[Step]) -> list[Step]:
    """The steps without those that only should be known, which are said here."""
    found = list(steps)
    narrate([f"{label(vm)}: {step}" for step in found if isinstance(step, Note)])
    return [step for step in found if not isinstance(step, Note)]

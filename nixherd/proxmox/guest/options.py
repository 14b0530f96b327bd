"""Options as they are sent and as a server keeps them: whether what is there is what was asked for. Pure."""

import re

from nixherd.errors import Usage
from nixherd.fleet.models import Fleet, GuestType, Vm
from nixherd.names import STORAGE
from nixherd.proxmox.config import CT_DISKS, VM_DISKS, VmConfig, properties, size_or_none, tags_of
from nixherd.proxmox.guest.identity import label, marked, unmarked
from nixherd.proxmox.steps import Change, Configure, Step, sent

_NEW = re.compile(rf"(?:(?:file|volume)=)?(?P<storage>{STORAGE}):(?P<size>\d+(?:\.\d+)?)", re.ASCII)
_CLOUD_INIT = re.compile(rf"(?:file=)?(?P<storage>{STORAGE}):cloudinit", re.ASCII)
_DRIVE = re.compile(f"{VM_DISKS}|{CT_DISKS}", re.ASCII)
_CARD = re.compile(r"net\d+", re.ASCII)
_OF_THE_SERVER = frozenset(("type", "hwaddr"))  # what it adds to a container's card


def to_send(fleet: Fleet, vm: Vm, config: VmConfig, values: dict[str, object]) -> dict[str, object]:
    """The options as they may be sent: tags as the server keeps them, notes with our mark.

    Usage for what would make the guest somebody else's: another name, or notes without the mark.
    """
    if isinstance(tags := values.get("tags"), str):
        values = {**values, "tags": ";".join(tags_of(tags))}
    name = "hostname" if vm.type is GuestType.LXC else "name"
    if name in values and values[name] != vm.name:
        raise Usage(f"{label(vm)}: by its {name} and notes it is known to be this fleet's; both are left as they are")
    if "description" not in values:
        return values
    if values["description"] is None:
        raise Usage(
            f"{label(vm)}: its notes hold the mark that makes it this fleet's and are not taken away; "
            'description="" empties the rest'
        )
    words = unmarked(fleet, vm, str(values["description"]))
    same = words == unmarked(fleet, vm, config.description)
    return {**values, "description": config.text("description") if same else marked(fleet, vm, words)}


def is_so(config: VmConfig, key: str, value: object) -> bool:
    """Whether the option is as it would be after sending this value: the server names volumes and makes up MACs."""
    there = config.text(key)
    text = None if value is None else str(int(value) if isinstance(value, bool) else value)
    if there == text or there is None or text is None:
        return there == text
    if _CARD.fullmatch(key):
        return _is_card(there, text)
    return _DRIVE.fullmatch(key) is not None and _is_drive(there, text)


def _is_drive(there: str, text: str) -> bool:
    first, *rest = text.split(",")
    has = properties(there, "file")
    storage, _, volume = (has.get("file") or has.get("volume") or "").partition(":")
    if new := _CLOUD_INIT.fullmatch(first):
        return storage == new["storage"] and "cloudinit" in volume
    new = _NEW.fullmatch(first)
    if new is None or storage != new["storage"]:
        return False
    size = size_or_none(has.get("size"))
    target = properties(",".join(rest), "")
    return size == int(float(new["size"]) * (1 << 30)) and target.items() <= has.items() | {("format", "raw")}


def _is_card(there: str, text: str) -> bool:
    """Whether they are the same but for the MAC, where none was asked for."""
    has, target = properties(there, "model"), properties(text, "model")
    if (model := target.pop("model", None)) and model in has:
        del has[model]
    if "hwaddr" not in target and "name" in target:
        has = {key: value for key, value in has.items() if key not in _OF_THE_SERVER or key in target}
    return has == target


def makes_a_volume(change: Change) -> bool:
    """Whether a server makes a new volume each time that this is sent."""
    return isinstance(change.value, str) and _NEW.match(change.value) is not None and bool(_DRIVE.fullmatch(change.key))


def in_vain(done: list[Step], step: Step) -> bool:
    """Whether the step was carried out before and is to be carried out again, by what it sends: it changes nothing.

    Once more is allowed, for somebody may have taken it back, unless that makes another volume.
    """
    if not isinstance(step, Configure):
        return [str(each) for each in done].count(str(step)) > 1
    same = [each for each in done if isinstance(each, Configure) and sent(each.changes) == sent(step.changes)]
    return len(same) > (0 if any(map(makes_a_volume, step.changes)) else 1)

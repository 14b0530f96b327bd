"""What of a node's settings is in effect, and what waits for a boot: what runs, compared with what is set. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nixherd.proxmox.node import states
from nixherd.proxmox.node.kernel import dkms_rows, installed, lacking_words, next_kernel, order
from nixherd.proxmox.node.passthrough import MODULES, cards
from nixherd.proxmox.node.states import GRUB, VENDOR_RESET


@dataclass(frozen=True)
class Pending:
    """A setting that is not in effect. `booted`: the node has booted since it was made, so another boot is in vain."""

    what: str
    booted: bool
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.what}{f': {self.remedy}' if self.booted and self.remedy else ''}"


@dataclass(frozen=True)
class Seen:
    """All that was read of a node, of the `devices` that are passed through, and what the kernel is to be told."""

    node: states.NodeState
    boot: states.BootState
    modules: states.ModuleState
    pci: states.PciState
    dkms: states.DkmsState | None
    devices: Sequence[states.PciDevice]
    words: Sequence[str]
    version: str | None = None
    """of vendor-reset, where it is asked for"""


def waiting(seen: Seen) -> list[Pending]:
    """Return everything that is set and not in effect."""
    return [*_due_words(seen), *_due_modules(seen), *_due_devices(seen), *(_due_reset(seen) if seen.version else ())]


def _booted_since(seen: Seen, time: int | None) -> bool:
    booted = seen.node["booted"]
    return time is not None and booted is not None and time < booted


def _due_words(seen: Seen) -> Iterator[Pending]:
    since = _booted_since(seen, seen.boot["entries_time"])
    if words := lacking_words([seen.boot["command_line"]], seen.words):
        which = "the boot loader has them, yet the running kernel was not given them: which entry was booted?"
        yield Pending(f"the running kernel was not told {' '.join(words)}", since, which)
    elif seen.pci["groups"] == 0:
        remedy = "switch the IOMMU (AMD-Vi, VT-d) on in the firmware"
        yield Pending("there are no IOMMU groups", booted=True, remedy=remedy)


def _due_modules(seen: Seen) -> Iterator[Pending]:
    since = _booted_since(seen, seen.modules["times"].get(states.VFIO_MODULES))
    if away := [module for module in MODULES if module not in seen.modules["loaded"]]:
        yield Pending(f"not loaded: {', '.join(away)}", since, "see `journalctl -b -u systemd-modules-load`")


def _due_devices(seen: Seen) -> Iterator[Pending]:
    since = _booted_since(seen, seen.modules["times"].get(states.VFIO))
    for device in seen.devices:
        if device["driver"] != "vfio-pci":
            driver = device["driver"]
            remedy = f"{driver or 'another module'} takes it first; say blacklist={driver or 'MODULE'}"
            yield Pending(
                f"{device['address']} ({device['id']}) is driven by {driver or 'nothing'}, not by vfio-pci",
                since,
                remedy,
            )


def _due_reset(seen: Seen) -> Iterator[Pending]:
    since = _booted_since(seen, seen.modules["times"].get(states.CARD_RULE))
    if VENDOR_RESET.replace("-", "_") not in seen.modules["loaded"]:
        remedy = f"`modprobe {VENDOR_RESET}` on the node says why"
        if seen.node["secure_boot"]:
            remedy += "; Secure Boot is on, under which a module loads only if its signer's key is enrolled"
        yield Pending(f"not loaded: {VENDOR_RESET}", since, remedy)
        return
    built = seen.dkms["builds"].get(seen.node["kernel"]) if seen.dkms else None
    if seen.dkms and built and seen.dkms["loaded"] not in (None, built):
        yield Pending(f"another build of {VENDOR_RESET} is loaded than the one that is installed", booted=False)
    for device in cards(seen.devices):
        method = device["reset_method"]
        if method is None or "device_specific" not in method.split():
            remedy = f"{VENDOR_RESET} does not know {device['id']}: add it to src/device-db.h of its source"
            yield Pending(f"{device['address']} ({device['id']}) is reset by {method or 'nothing'}", since, remedy)


def read_back(seen: Seen) -> str:
    """Return what the node says that its next boot brings."""
    entries, words = seen.boot["entries"], seen.words
    files = [(seen.boot["effective"] if file == GRUB else text) or "" for file, text in seen.boot["texts"].items()]
    away = lacking_words(files if entries is None else entries, words)
    told = f", told {' '.join(word for word in words if word not in away) or 'nothing of this'}" if words else ""
    unseen = " by its files; what the boot loader has is unknown" if words and entries is None else ""
    kernel = next_kernel(seen.boot) or "unknown"
    line = f"read back: the next kernel is {kernel}{told}{unseen}"
    if not seen.version or not seen.dkms:
        return line
    have = ", ".join(sorted(installed(dkms_rows(seen.dkms["status"]), seen.version), key=order)) or "none"
    return f"{line}; {VENDOR_RESET} {seen.version} is installed for {have}"


def problems(seen: Seen) -> list[str]:
    """Return what no boot will mend: the kernel of the next boot lacks the module."""
    if not seen.version or not seen.dkms:
        return []
    kernel, have = next_kernel(seen.boot), installed(dkms_rows(seen.dkms["status"]), seen.version)
    lacks = f"{VENDOR_RESET} {seen.version} is not installed for"
    if kernel is not None:
        return [f"{lacks} {kernel}, which boots next"] if kernel not in have else []
    away = [each["version"] for each in seen.boot["kernels"] if each["version"] not in have]
    return [f"which kernel boots next is not known, and {lacks} {', '.join(away)}"] if away else []


def remarks(seen: Seen) -> list[str]:
    """Return what a person should know and does not fail the node."""
    lines = []
    kernel = next_kernel(seen.boot)
    if seen.version and seen.node["secure_boot"]:
        signer = (seen.dkms or {"signers": {}})["signers"].get(kernel or "", "")
        who = f"is signed by {signer}" if signer else "is not signed"
        lines.append(
            f"Secure Boot is on, and the module {who}: it loads only if that key is enrolled (`mokutil --import "
            "/var/lib/dkms/mok.pub`, then at the console of the next boot)"
        )
    if kernel and kernel != seen.node["kernel"]:
        lines.append(f"the next boot brings kernel {kernel}; {seen.node['kernel']} runs")
    ours = {device["address"] for device in seen.devices}
    for device in seen.devices:
        group = [
            each for each in seen.pci["devices"] if device["group"] is not None and each["group"] == device["group"]
        ]
        others = [each for each in group if each["address"] not in ours and not each["kind"].startswith("06")]
        shared = [f"{each['address']} ({each['id']})" for each in others]  # bridges, 06, stay with the host
        if shared:
            lines.append(f"{device['address']} is in one IOMMU group with {', '.join(shared)}: they go with it")
    return lines

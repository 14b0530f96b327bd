"""What boots a node: the boot loader, the next kernel, the words it is told, and its modules by DKMS. Pure.

Words are added to the command line in /etc/default/grub or /etc/kernel/cmdline, and all others stay.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from nixherd.base.errors import FleetError, Refused
from nixherd.proxmox.node.states import CMDLINE, GRUB, VENDOR_RESET, BootState

# `proxmox-boot-tool status`, a line for each ESP: "AB12-34CD is configured with: uefi (versions: …), grub (…)"
_ESP = re.compile(r"^\S+ is configured with: (?P<with>.*)$", re.MULTILINE)
_KIND = re.compile(r"(?:^|, )(uefi|grub)(?= \(|,|$)")
# Packages of kernels, and those whose new versions bring new kernels; `proxmox-kernel-helper` is neither.
_IMAGE = re.compile(r"(?P<vendor>proxmox|pve)-kernel-(?P<what>[0-9].*?)(-signed)?")
_LINUX = re.compile(r"linux-image-(?P<what>.+?)(-unsigned)?")


@dataclass(frozen=True)
class Loader:
    """What boots a node: which files say its command line, and what makes them count."""

    name: str
    files: tuple[str, ...]
    update: str


def loader_of(boot: BootState) -> Loader:
    """Return what boots the node.

    Raise FleetError for a boot loader that is not known here, or does not say what it is.
    """
    if boot["tool"] is not None:
        kinds = {kind for line in _ESP.finditer(boot["tool"]) for kind in _KIND.findall(line["with"])}
        if not kinds:
            answer = " / ".join(boot["tool"].split("\n")[:3]).strip() or "nothing"
            raise FleetError(f"`proxmox-boot-tool status` says {answer}: what boots this node is not known")
        files = tuple(file for kind, file in (("uefi", CMDLINE), ("grub", GRUB)) if kind in kinds)
        names = {"uefi": "systemd-boot", "grub": "GRUB"}
        name = f"{' and '.join(names[kind] for kind in sorted(kinds))} by proxmox-boot-tool"
        return Loader(name, files, "proxmox-boot-tool refresh")
    if GRUB in boot["texts"]:
        return Loader("GRUB", (GRUB,), "update-grub")
    raise FleetError(f"neither {GRUB} nor an ESP of proxmox-boot-tool: what boots this node is not known")


def order(version: str) -> tuple[tuple[int, int | str], ...]:
    """Return a key that sorts kernels' versions as `sort -V` does: numbers as numbers."""
    parts: Iterable[str] = re.findall(r"\d+|[^\d]+", version)
    return tuple((1, int(part)) if part.isdecimal() else (0, part) for part in parts)


def next_kernel(boot: BootState) -> str | None:
    """Return the kernel of the next boot; None where nobody can say."""
    versions = [kernel["version"] for kernel in boot["kernels"]]
    if boot["pinned"]:
        return boot["pinned"] if boot["pinned"] in versions else None
    if boot["tool"] is None and boot["grub_default"] not in ("", "0"):
        return None
    return max(versions, key=order, default=None)


def headers_of(package: str | None) -> str | None:
    """Return the package of a kernel's headers; None for a kernel that is not known here."""
    if package is None:
        return None
    if package == "proxmox-default-kernel":
        return "proxmox-default-headers"
    if match := _IMAGE.fullmatch(package):
        return f"{match['vendor']}-headers-{match['what']}"
    if match := _LINUX.fullmatch(package):
        return f"linux-headers-{match['what']}"
    return None


INTEL, AMD = "GenuineIntel", "AuthenticAMD"
WORD = re.compile(r"[A-Za-z0-9_.-]+(=[A-Za-z0-9_.,:/@%+-]+)?", re.ASCII)
_VARIABLE = "GRUB_CMDLINE_LINUX_DEFAULT"
_MENTIONS = re.compile(rf"^[^#\n]*\b{_VARIABLE}\b", re.MULTILINE)
# One plain assignment, alone on its line; what a shell would expand is a person's to edit.
_ASSIGNMENT = re.compile(
    rf"""^(?P<before>[ \t]*(?:export[ \t]+)?{_VARIABLE}=)"""
    r"""(?:"(?P<double>[^"$`\\\n]*)"|'(?P<single>[^'\n]*)'|(?P<bare>[A-Za-z0-9_.,:/@%+=-]*))"""
    r"""(?P<after>[ \t]*(?:[ \t]\#.*)?)$""",
    re.MULTILINE,
)
_SWITCHES = ("intel_iommu", "amd_iommu", "iommu")


def words_for(vendor: str | None, more: Sequence[str]) -> tuple[str, ...]:
    """Return what the kernel has to be told on this CPU, and what the operator adds; AMD's IOMMU needs no word.

    Raise FleetError for a CPU of another vendor.
    """
    if vendor not in (INTEL, AMD):
        raise FleetError(f"the CPU calls itself {vendor or 'nothing'}: whether its IOMMU needs a word is not known")
    default = ("intel_iommu=on",) if vendor == INTEL else ()
    return tuple(dict.fromkeys((*default, *more)))


def missing_words(have: Collection[str], words: Sequence[str]) -> list[str]:
    """Return those of these words that a command line lacks. Raise Refused where it says the opposite."""
    for word in have:
        key, _, value = word.partition("=")
        if key in _SWITCHES and "off" in value.split(","):
            raise Refused(f"{word} is there and turns the IOMMU off; take it out, then run this again")
    lacking_words = [word for word in words if not _has(have, word)]
    for word in lacking_words:
        key, equals, _ = word.partition("=")
        if equals and (other := next((each for each in have if each.partition("=")[0] == key), None)):
            raise Refused(f"{other} is there where {word} is asked for; decide which, then run this again")
    return lacking_words


def _has(have: Collection[str], expected: str) -> bool:
    """Tell whether the word is present, by itself or among the values of one (`intel_iommu=on,sm_on`)."""
    key, equals, value = expected.partition("=")
    if not equals or "," in value:
        return expected in have
    return any(word.startswith(f"{key}=") and value in word.partition("=")[2].split(",") for word in have)


def with_words(file: str, text: str, words: Sequence[str]) -> str:
    """Add these words to the file's command line. Raise Refused where it is not one plain assignment."""
    return (_grub if file == GRUB else _cmdline)(text, words)


def words_in(file: str, text: str) -> list[str]:
    """Return the words in a file; of GRUB's only those of a plain assignment."""
    if file == CMDLINE:
        return text.split()
    assignments = list(_ASSIGNMENT.finditer(text))
    return _value(assignments[-1]).split() if assignments else []


def _value(match: re.Match[str]) -> str:
    return next(part for part in match.group("double", "single", "bare") if part is not None)


def _grub(text: str, words: Sequence[str]) -> str:
    if not words:
        return text
    plain = list(_ASSIGNMENT.finditer(text))
    if len(plain) != len(_MENTIONS.findall(text)):
        raise Refused(
            f"{GRUB}: {_VARIABLE} is more than one plain assignment; add {' '.join(words)} to it yourself, "
            "run update-grub, then this again"
        )
    if not plain:
        end = "" if not text or text.endswith("\n") else "\n"
        return f'{text}{end}{_VARIABLE}="{" ".join(words)}"\n'
    last = plain[-1]  # the one that counts
    quote = "'" if last["single"] is not None else '"'
    value = " ".join(filter(None, (_value(last).rstrip(), *words)))
    return text[: last.start()] + f"{last['before']}{quote}{value}{quote}{last['after']}" + text[last.end() :]


def _cmdline(text: str, words: Sequence[str]) -> str:
    if len(text.split("\n", 1)) == 2 and text.split("\n", 1)[1].strip():
        raise Refused(f"{CMDLINE}: more than one line, of which only the first may count; make it one, run this again")
    line, newline, rest = text.partition("\n")
    if not line.strip():
        raise Refused(f"{CMDLINE}: it is empty; write root=… into it first, as /proc/cmdline has it")
    return f"{' '.join((line.rstrip(), *words))}{newline or chr(10)}{rest}" if words else text


def lacking_words(entries: Collection[str], words: Sequence[str]) -> list[str]:
    """Return those of these words that some entry of the boot loader lacks; entries for repair do not count."""
    normal = [line.split() for line in entries if "single" not in line.split()]
    return [word for word in words if not all(_has(line, word) for line in normal)]


# DKMS 2.x: `vendor-reset, 0.1.1, 5.15.39-1-pve, x86_64: installed`, since 2.8.6: `vendor-reset/0.1.1, …`; what was
# added alone has no kernel. Behind the state it warns: `(WARNING! Diff between built and installed module!)`.
_DKMS_ROW = re.compile(
    r"(?P<name>[^\s/,:]+)(?:/|, )(?P<version>[^\s,:]+)(?:, (?P<kernel>[^\s,:]+), (?P<arch>[^\s,:]+))?: "
    r"(?P<state>[a-z-]+)(?P<more>.*)"
)
_CONF = r"""^[ \t]*{}=(?:"([^"$`]*)"|'([^'$`]*)'|([A-Za-z0-9._+-]*))[ \t]*(?:\#.*)?$"""
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")


@dataclass(frozen=True)
class DkmsRow:
    """One module at one version, for one kernel. `state` is DKMS's word: added, built, installed, broken, …"""

    name: str
    version: str
    kernel: str | None
    state: str
    warning: str = ""

    @property
    def is_installed(self) -> bool:
        return self.state == "installed" and not self.warning


def dkms_rows(text: str) -> tuple[DkmsRow, ...]:
    """Parse the rows of `dkms status`; other lines are left out."""
    matches = (_DKMS_ROW.fullmatch(line.strip()) for line in text.splitlines())
    rows = (each.group("name", "version", "kernel", "state", "more") for each in matches if each)
    return tuple(
        DkmsRow(name, version, kernel, state, more.strip() if "WARNING" in more else "")
        for name, version, kernel, state, more in rows
    )


def version_of(conf: str | None, directory: str) -> str:
    """Return the version in a source's dkms.conf. Raise FleetError without one, or for another module."""
    if conf is None:
        raise FleetError(
            f"{directory}/dkms.conf is not there: put the source of {VENDOR_RESET} (the directory that holds its "
            f"dkms.conf) into {directory} on the node, or name another with vendor_reset="
        )
    name, version = _conf_value(conf, "PACKAGE_NAME"), _conf_value(conf, "PACKAGE_VERSION")
    if name != VENDOR_RESET:
        raise FleetError(f"{directory}/dkms.conf is of {name or 'no module'}, not {VENDOR_RESET}; name its directory")
    if version is None or not _VERSION.fullmatch(version):
        raise FleetError(f"{directory}/dkms.conf: PACKAGE_VERSION is not a plain version; write one")
    return version


def _conf_value(conf: str, name: str) -> str | None:
    values = re.findall(_CONF.format(name), conf, re.MULTILINE)
    return next(filter(None, values[-1]), None) if values else None


def installed(rows: tuple[DkmsRow, ...], version: str) -> frozenset[str]:
    """Return the kernels that this version is installed for."""
    ours = (row for row in rows if row.name == VENDOR_RESET and row.version == version and row.is_installed)
    return frozenset(row.kernel for row in ours if row.kernel)

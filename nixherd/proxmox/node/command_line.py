"""The kernel's command line in /etc/default/grub or /etc/kernel/cmdline: words are added, all others stay. Pure."""

import re
from collections.abc import Collection, Sequence

from nixherd.errors import FleetError, Refused
from nixherd.proxmox.node import CMDLINE, GRUB

INTEL, AMD = "GenuineIntel", "AuthenticAMD"
WORD = re.compile(r"[A-Za-z0-9_.-]+(=[A-Za-z0-9_.,:/@%+-]+)?", re.ASCII)
_NAME = "GRUB_CMDLINE_LINUX_DEFAULT"
_MENTIONS = re.compile(rf"^[^#\n]*\b{_NAME}\b", re.MULTILINE)
# One plain assignment, alone on its line; what a shell would expand is a person's to edit.
_ASSIGNMENT = re.compile(
    rf"""^(?P<before>[ \t]*(?:export[ \t]+)?{_NAME}=)"""
    r"""(?:"(?P<double>[^"$`\\\n]*)"|'(?P<single>[^'\n]*)'|(?P<bare>[A-Za-z0-9_.,:/@%+=-]*))"""
    r"""(?P<after>[ \t]*(?:[ \t]\#.*)?)$""",
    re.MULTILINE,
)
_SWITCHES = ("intel_iommu", "amd_iommu", "iommu")


def words_for(vendor: str | None, more: Sequence[str]) -> tuple[str, ...]:
    """What the kernel has to be told on this CPU, with what the operator adds. AMD's IOMMU is on without a word.

    FleetError for a CPU that is neither's.
    """
    if vendor not in (INTEL, AMD):
        raise FleetError(
            f"the CPU calls itself {vendor or 'nothing'}: whether its IOMMU needs a word is not known here"
        )
    own = ("intel_iommu=on",) if vendor == INTEL else ()
    return tuple(dict.fromkeys((*own, *more)))


def missing(have: Collection[str], wanted: Sequence[str]) -> list[str]:
    """Of these words, those that a command line does not have. Refused where it says the opposite: who wrote that had
    a reason."""
    for word in have:
        key, _, value = word.partition("=")
        if key in _SWITCHES and "off" in value.split(","):
            raise Refused(f"{word} is there and turns the IOMMU off; take it out, then run this again")
    lacking = [word for word in wanted if not _has(have, word)]
    for word in lacking:
        key, equals, _ = word.partition("=")
        if equals and (other := next((each for each in have if each.partition("=")[0] == key), None)):
            raise Refused(f"{other} is there where {word} is asked for; decide which, then run this again")
    return lacking


def _has(have: Collection[str], wanted: str) -> bool:
    """Whether the word is there, by itself or among the values of one (`intel_iommu=on,sm_on`)."""
    key, equals, value = wanted.partition("=")
    if not equals or "," in value:
        return wanted in have
    return any(word.startswith(f"{key}=") and value in word.partition("=")[2].split(",") for word in have)


def with_words(file: str, text: str, words: Sequence[str]) -> str:
    """The file with these words at the end of its command line. Refused where it is not written plainly."""
    return (_grub if file == GRUB else _cmdline)(text, words)


def words_in(file: str, text: str) -> list[str]:
    """The words that a file says; of GRUB's only those that are written in it plainly."""
    if file == CMDLINE:
        return text.split()
    found = list(_ASSIGNMENT.finditer(text))
    return _value(found[-1]).split() if found else []


def _value(match: re.Match[str]) -> str:
    return next(part for part in match.group("double", "single", "bare") if part is not None)


def _grub(text: str, words: Sequence[str]) -> str:
    if not words:
        return text
    plain = list(_ASSIGNMENT.finditer(text))
    if len(plain) != len(_MENTIONS.findall(text)):
        raise Refused(
            f"{GRUB}: {_NAME} is more than one plain assignment; add {' '.join(words)} to it yourself, "
            "run update-grub, then this again"
        )
    if not plain:
        end = "" if not text or text.endswith("\n") else "\n"
        return f'{text}{end}{_NAME}="{" ".join(words)}"\n'
    last = plain[-1]  # the one that counts
    quote = "'" if last["single"] is not None else '"'
    value = " ".join(filter(None, (_value(last).rstrip(), *words)))
    return text[: last.start()] + f"{last['before']}{quote}{value}{quote}{last['after']}" + text[last.end() :]


def _cmdline(text: str, words: Sequence[str]) -> str:
    if len(text.split("\n", 1)) == 2 and text.split("\n", 1)[1].strip():
        raise Refused(
            f"{CMDLINE}: more than one line, of which the first alone may count; make it one, then run this again"
        )
    line, newline, rest = text.partition("\n")
    if not line.strip():
        raise Refused(f"{CMDLINE}: it is empty; write root=… into it first, as /proc/cmdline has it")
    return f"{' '.join((line.rstrip(), *words))}{newline or chr(10)}{rest}" if words else text


def lacking(entries: Collection[str], words: Sequence[str]) -> list[str]:
    """Of these words, those that some entry of the boot loader does not have; one for repair has none of them."""
    normal = [line.split() for line in entries if "single" not in line.split()]
    return [word for word in words if not all(_has(line, word) for line in normal)]

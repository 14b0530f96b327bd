"""Words in /etc/default/grub and /etc/kernel/cmdline: those that are asked for come in, every other one stays."""

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.errors import FleetError, Refused
from nixherd.proxmox.node.kernel import lacking_words, missing_words, with_words, words_for, words_in
from nixherd.proxmox.node.states import CMDLINE, GRUB

# As Proxmox VE 9's installer leaves it.
SHIPPED = """\
# If you change this file, run 'update-grub' afterwards to update
# /boot/grub/grub.cfg.

GRUB_DEFAULT=0
GRUB_TIMEOUT=5
GRUB_DISTRIBUTOR=`( . /etc/os-release && echo ${NAME} )`
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX=""

# Uncomment to disable generation of recovery mode menu entries
#GRUB_CMDLINE_LINUX_RECOVERY="single"
"""
WORDS = st.from_regex(r"[a-z][a-z0-9_.]{0,8}(=[A-Za-z0-9:/,.-]{1,10})?", fullmatch=True).filter(
    lambda word: word.split("=")[0] not in ("intel_iommu", "amd_iommu", "iommu")
)
LINES = st.sampled_from(
    ["", "# GRUB_CMDLINE_LINUX_DEFAULT=no", "GRUB_TIMEOUT=5", "GRUB_CMDLINE_LINUX='root=ZFS=x'", "\t"]
)


def told(text: str) -> list[str]:
    """The words that a shell makes of it."""
    done = subprocess.run(
        ["sh", "-c", f'{text}\nprintf %s "$GRUB_CMDLINE_LINUX_DEFAULT"'], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_what_is_shipped() -> None:
    new = with_words(GRUB, SHIPPED, ["intel_iommu=on", "iommu=pt"])
    assert new == SHIPPED.replace('"quiet"', '"quiet intel_iommu=on iommu=pt"')
    assert words_in(GRUB, new) == ["quiet", "intel_iommu=on", "iommu=pt"] == told(new)
    assert with_words(GRUB, new, missing_words(words_in(GRUB, new), ["intel_iommu=on", "iommu=pt"])) == new
    zfs = "root=ZFS=rpool/ROOT/pve-1 boot=zfs\n"
    assert with_words(CMDLINE, zfs, ["iommu=pt"]) == "root=ZFS=rpool/ROOT/pve-1 boot=zfs iommu=pt\n"
    assert with_words(CMDLINE, zfs.rstrip(), ["iommu=pt"]) == "root=ZFS=rpool/ROOT/pve-1 boot=zfs iommu=pt\n"


@given(
    st.lists(LINES, max_size=3),
    st.lists(WORDS, max_size=4),
    st.sampled_from(['"', "'"]),
    st.lists(LINES, max_size=3),
    st.sampled_from([("intel_iommu=on",), ("intel_iommu=on", "iommu=pt"), ()]),
)
def test_every_other_word_and_line_stays(
    before: list[str], have: list[str], quote: str, after: list[str], wanted: tuple[str, ...]
) -> None:
    line = f"GRUB_CMDLINE_LINUX_DEFAULT={quote}{' '.join(have)}{quote}"
    text = "\n".join([*before, line, *after]) + "\n"
    new = with_words(GRUB, text, missing_words(have, wanted))
    assert words_in(GRUB, new) == [*have, *wanted]
    [changed] = [old for old, now in zip(text.split("\n"), new.split("\n"), strict=True) if old != now] or [line]
    assert changed == line
    assert with_words(GRUB, new, missing_words(words_in(GRUB, new), wanted)) == new
    cmdline = f"{' '.join(['root=x', *have])}\n"
    again = with_words(CMDLINE, cmdline, missing_words(cmdline.split(), wanted))
    assert again.split() == ["root=x", *have, *wanted]
    assert with_words(CMDLINE, again, missing_words(again.split(), wanted)) == again
    assert again.count("\n") == 1


def test_the_last_of_two_counts_and_one_that_is_not_there_is_written() -> None:
    two = 'GRUB_CMDLINE_LINUX_DEFAULT="a"\nGRUB_CMDLINE_LINUX_DEFAULT=b # mine\n'
    assert told(with_words(GRUB, two, ["c"])) == ["b", "c"]
    for text in ("", "GRUB_TIMEOUT=5", "GRUB_TIMEOUT=5\n", SHIPPED.replace("GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_OTHER")):
        assert told(with_words(GRUB, text, ["c"])) == ["c"]


@pytest.mark.parametrize(
    "line",
    [
        'GRUB_CMDLINE_LINUX_DEFAULT="quiet $MORE"',
        'GRUB_CMDLINE_LINUX_DEFAULT="$(cat /etc/kernel/cmdline)"',
        'GRUB_CMDLINE_LINUX_DEFAULT="quiet \\\nsplash"',
        'GRUB_CMDLINE_LINUX_DEFAULT+=" splash"',
        '[ -z "$x" ] || GRUB_CMDLINE_LINUX_DEFAULT=quiet',
        'GRUB_CMDLINE_LINUX_DEFAULT="a"; GRUB_TIMEOUT=1',
        'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\r',
        'GRUB_CMDLINE_LINUX_DEFAULT="a \\"b\\""',
    ],
)
def test_what_a_shell_would_work_out_is_a_persons_to_edit(line: str) -> None:
    with pytest.raises(Refused, match="add iommu=pt to it yourself"):
        with_words(GRUB, f"{SHIPPED.replace('GRUB_CMDLINE_LINUX_DEFAULT', 'X')}{line}\n", ["iommu=pt"])


def test_a_command_line_of_two_lines_or_none() -> None:
    for text in ("a\nb\n", "\na\n", "", " \n"):
        with pytest.raises(Refused, match=CMDLINE):
            with_words(CMDLINE, text, ["iommu=pt"])


def test_who_says_the_opposite_had_a_reason() -> None:
    for have, why in (
        ("quiet intel_iommu=off", "turns the IOMMU off"),
        ("iommu=off", "turns the IOMMU off"),
        ("amd_iommu=off,fullflush", "turns the IOMMU off"),
        ("iommu=soft", "is there where iommu=pt is asked for"),
    ):
        with pytest.raises(Refused, match=why):
            missing_words(have.split(), ["iommu=pt"])
    assert missing_words(["a", "intel_iommu=on,sm_on", "iommu=pt"], ["intel_iommu=on", "iommu=pt"]) == []
    assert missing_words([], ["iommu=pt", "nomodeset"]) == ["iommu=pt", "nomodeset"]


def test_what_a_cpu_needs() -> None:
    assert words_for("GenuineIntel", ()) == ("intel_iommu=on",)
    assert words_for("AuthenticAMD", ()) == ()
    assert words_for("AuthenticAMD", ("iommu=pt",)) == ("iommu=pt",)
    for vendor in (None, "HygonGenuine"):
        with pytest.raises(FleetError, match="not known"):
            words_for(vendor, ())


def test_what_the_boot_loader_has() -> None:
    entries = ["linux /boot/vmlinuz-6 root=x quiet iommu=pt", "linux /boot/vmlinuz-6 root=x single"]
    assert lacking_words(entries, ["iommu=pt"]) == []
    assert lacking_words(["options root=x iommu=soft", *entries], ["iommu=pt"]) == ["iommu=pt"]
    assert shlex.split(entries[0])[0] == "linux"

"""What a node boots with: the initramfs, and the words that the kernel is told."""

import hashlib
import shlex
from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import operation

from facts.proxmox_host import Boot, Modules, Pci
from nixherd.errors import FleetError, Refused
from nixherd.proxmox.node import passthrough
from nixherd.proxmox.node.kernel import Loader, lacking_words, loader_of, missing_words, with_words, words_for, words_in
from nixherd.proxmox.node.states import BACKUPS, CMDLINE, GRUB, LOG, NOTES, VFIO, BootState, script
from operations.proxmox_host.asking import (
    LONG,
    ask,
    decide_on_node,
    node_of_host,
    run_logged,
    run_there,
    wanted_of,
)
from operations.steps import Commands, do


@operation()
def initramfs() -> Commands:
    """Make the initramfs anew of each kernel whose own is older than what vfio-pci is told, for it is told there."""
    yield from decide_on_node(_initramfs)


def _initramfs() -> Commands:
    boot, modules, wanted = ask(Boot), ask(Modules), wanted_of(host)
    planned = passthrough.differing(passthrough.vfio(wanted, passthrough.named(wanted, ask(Pci))), modules)
    written, begun = modules["times"].get(VFIO), "initramfs" in boot["notes"]
    with_one = [kernel for kernel in boot["kernels"] if kernel["initrd"] is not None]
    stale = [
        kernel["version"]
        for kernel in with_one
        if VFIO in planned or begun or written is None or (kernel["initrd"] or 0) <= written
    ]
    if not stale:
        host.noop(f"made since {VFIO} was written: the initramfs of {', '.join(each['version'] for each in with_one)}")
        return

    def act() -> None:
        kernels = " ".join(map(shlex.quote, stale))
        # its time has to be later than the file's, in whole seconds
        lines = [
            f"mkdir -p {NOTES}; : >{NOTES}/initramfs; sync",
            f'while [ "$(date +%s)" -le "$(stat -c %Y {VFIO})" ]; do sleep 0.1; done',
            f"for kernel in {kernels}; do update-initramfs -u -k $kernel; done",
            # the package's own hook copies them to where the firmware finds them
            "[ ! -s /etc/kernel/proxmox-boot-uuids ] || [ -x /etc/initramfs/post-update.d/proxmox-boot-sync ] || "
            "proxmox-boot-tool refresh",
            f"sync; rm -f {NOTES}/initramfs",
        ]
        run_logged("\n".join(lines), what=f"update-initramfs (the whole of it is in {LOG})")
        made = {kernel["version"]: kernel["initrd"] or 0 for kernel in ask(Boot)["kernels"]}
        since = ask(Modules)["times"].get(VFIO, 0)
        if old := [kernel for kernel in stale if made.get(kernel, 0) <= since]:
            raise FleetError(f"{host.data.node}: update-initramfs made none for {', '.join(old)}; see {LOG}")

    yield from do(host, f"make the initramfs of {', '.join(stale)} anew", act)


@operation()
def command_line() -> Commands:
    """Have the kernel told what the IOMMU needs, from the next boot on; every other word stays as it is."""
    yield from decide_on_node(_command_line)


def _command_line() -> Commands:
    boot, node, wanted = ask(Boot), node_of_host(), wanted_of(host)
    loader, words = loader_of(boot), words_for(node["vendor"], wanted.words)
    edits = [(file, new) for file in loader.files if (new := edited(boot, file, words)) is not None]
    stale = lacking_words(boot["entries"], words) if boot["entries"] is not None else []
    if edits:
        for file, new in edits:
            added = [word for word in words_in(file, new) if word not in words_in(file, boot["texts"][file])]
            host.log(f"{file}: {' '.join(added)} is added to: {' '.join(words_in(file, boot['texts'][file]))}")

        def act() -> None:
            for file, new in edits:
                _replace(boot, file, new, loader)
            _require_told(loader, words)

        yield from do(host, f"tell the kernel {' '.join(words)} in {', '.join(file for file, _ in edits)}", act)
    elif stale or "boot-loader" in boot["notes"]:
        why = f"the boot loader was not told {' '.join(stale)} yet" if stale else "an earlier run did not end it"

        def again() -> None:
            run_logged(f"{loader.update}; rm -f {NOTES}/boot-loader", what=f"{loader.update} (see {LOG} on the node)")
            _require_told(loader, words)

        yield from do(host, f"{loader.update}: {why}", again)
    elif words:
        unseen = "" if boot["entries"] is not None else "; what the boot loader has could not be read, and is unknown"
        host.noop(f"the kernel is told {' '.join(words)} by {', '.join(loader.files)}{unseen}")
    else:
        host.noop("this CPU's IOMMU is on without a word")


def edited(boot: BootState, file: str, words: Sequence[str]) -> str | None:
    """The file with what it lacks; None where it lacks nothing. Refused where it cannot be edited safely."""
    text = boot["texts"].get(file)
    if text is None:
        raise FleetError(f"{file} is not there, by which this node is booted; write it as /proc/cmdline has it")
    if "\ufffd" in text:
        raise Refused(
            f"{file}: it holds bytes that are no UTF-8, which an edit might lose; take them out, then run this again"
        )
    have = (boot["effective"] or "").split() if file == GRUB else text.split()
    away = missing_words(have, words)
    return with_words(file, text, away) if away else None


def _replace(boot: BootState, file: str, new: str, loader: Loader) -> None:
    old = boot["texts"][file]
    if file == CMDLINE:
        judge = '[ "$(wc -l <"$1")" -le 1 ] || { echo "it would have more than one line"; exit 1; }'
    else:
        added = [word for word in words_in(file, new) if word not in words_in(file, old)]
        expected = "\n".join(sorted([*(boot["effective"] or "").split(), *added]))
        judge = f"expected={shlex.quote(expected)}\n{script('judge_grub.sh')}"
    new = new if new.endswith("\n") else f"{new}\n"
    told = [file, _sum(old), _sum(new), BACKUPS, NOTES, judge, loader.update, LOG]
    program = f"set -- {' '.join(map(shlex.quote, told))}\n{script('replace.sh')}"
    run_there(program, stdin=new, what=f"replacing {file}", timeout=LONG)


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _require_told(loader: Loader, words: Sequence[str]) -> None:
    """FleetError unless the boot loader has the words, as far as it can be read."""
    entries = ask(Boot)["entries"]
    if entries is None:
        host.log(f"what {loader.name} has could not be read, and is unknown")
    elif away := lacking_words(entries, words):
        raise FleetError(
            f"{host.data.node}: {loader.update} ended well, and {loader.name} still lacks {' '.join(away)}"
        )

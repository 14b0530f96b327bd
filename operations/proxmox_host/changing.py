"""What is changed on a node: packages and modules, the files that bind devices, and what the node boots with."""

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from functools import partial

from pyinfra import host
from pyinfra.operations import apt

from nixherd.base.errors import FleetError, Refused
from nixherd.facts.proxmox_host import Boot, Dkms, Kernels, Modules, Pci
from nixherd.operations.proxmox_host import asking
from nixherd.operations.proxmox_host.asking import ask, require_node, settings_of
from nixherd.proxmox.node import passthrough, states
from nixherd.proxmox.node.kernel import (
    Loader,
    dkms_rows,
    headers_of,
    installed,
    lacking_words,
    loader_of,
    missing_words,
    next_kernel,
    with_words,
    words_for,
    words_in,
)
from nixherd.proxmox.node.states import LOG, NOTES, VENDOR_RESET, VFIO
from nixherd.pyinfra_glue.hosts import executing
from nixherd.pyinfra_glue.operation import Change, Commands, NoChange, operation

_NEWEST = ("proxmox-default-kernel", "linux-image-amd64", "linux-image-arm64")


@operation(require=require_node)
def packages() -> NoChange | Commands:
    """Install dkms and the headers of the kernels that it has to build for; nothing is upgraded or removed for that."""
    if not settings_of(host).source:
        return NoChange("no module is to be built")
    names = ["dkms"]
    for kernel in built_for(ask(Boot), asking.node_of_host()):
        if kernel["headers"]:
            continue
        headers = headers_of(kernel["package"])
        if headers is None:
            raise FleetError(
                f"{host.data.node}: kernel {kernel['version']} has no headers in /lib/modules, and is of "
                f"{kernel['package'] or 'no package'}: install what it is built against"
            )
        names.append(headers)
    # the packages that only bring the newest kernel get the one that brings its headers
    names += [headers for each in ask(Kernels) if each in _NEWEST and (headers := headers_of(each))]
    commands: Commands = apt.packages._inner(
        packages=sorted(set(names)), no_recommends=True, extra_install_args="--no-remove --no-upgrade"
    )
    return commands


def built_for(boot: states.BootState, node: states.NodeState) -> list[states.Kernel]:
    """Return the kernels that need the module: the one that boots next (each, where that is not known) and the one that
    runs."""
    following, running = next_kernel(boot), node["kernel"]
    return [each for each in boot["kernels"] if following in (None, each["version"]) or each["version"] == running]


@operation(require=require_node)
def vendor_reset() -> Change | NoChange:
    """Have DKMS build and install vendor-reset from its source directory on the node, for the kernels that need it.

    Another source under the version that is installed is built aside first: what works stays until its successor does.
    """
    source = settings_of(host).source
    if not source:
        return NoChange(f"{VENDOR_RESET} is not asked for")
    state, version = ask(Dkms, source=source), asking.source_version(source)
    rows = dkms_rows(state["status"])
    others = sorted({row.version for row in rows} - {version})
    is_same = state["registered"] == state["source"]
    built = installed(rows, version) if is_same else frozenset()
    kernels = [kernel["version"] for kernel in built_for(ask(Boot), asking.node_of_host())]
    if not kernels:
        raise FleetError(f"{host.data.node}: /boot has no kernel that {VENDOR_RESET} could be built for")
    lacking_it = [kernel for kernel in kernels if kernel not in built]
    if not lacking_it and not others:
        return NoChange(f"{VENDOR_RESET} {version} is installed for {', '.join(kernels)}")
    commands, summary = [], []
    if lacking_it:
        names, module = " ".join(map(shlex.quote, lacking_it)), f"-m {VENDOR_RESET} -v {shlex.quote(version)}"
        if not is_same:
            commands.append(_replacing(source, version, names if rows else ""))
        elif not any(row.version == version for row in rows):
            commands.append(f"dkms add {module}")
        each = f"dkms build {module} -k $kernel; dkms install {module} -k $kernel --force"
        commands.append(f"for kernel in {names}; do {each}; done")
        summary.append(f"build and install {VENDOR_RESET} {version} from {source} for {', '.join(lacking_it)}")
    if others:
        commands += [f"dkms remove -m {VENDOR_RESET} -v {shlex.quote(other)} --all" for other in others]
        summary.append(f"remove {VENDOR_RESET} {', '.join(others)} from DKMS")
    return Change("; ".join(summary), partial(_build, "\n".join(commands), source, version, lacking_it))


def _build(commands: str, source: str, version: str, kernels: Sequence[str]) -> None:
    asking.run_logged(commands, what=f"dkms (the whole of it is in {LOG})")
    built = installed(dkms_rows(ask(Dkms, source=source)["status"]), version)
    if still := [kernel for kernel in kernels if kernel not in built]:
        raise FleetError(f"{host.data.node}: dkms has not installed it for {', '.join(still)}; see {LOG}")


def _replacing(source: str, version: str, trial: str) -> str:
    """Give DKMS this source; built aside first for the kernels of `trial`, where something works that it replaces."""
    target, given = f"/usr/src/{VENDOR_RESET}-{version}", shlex.quote(source)
    module = f"-m {VENDOR_RESET} -v {shlex.quote(version)}"
    lines = []
    if trial:
        aside = '--dkmstree "$aside/tree" --sourcetree "$aside/src"'
        lines += [
            "aside=$(mktemp -d /var/tmp/nixherd-dkms.XXXXXX)",
            "trap 'rm -rf \"$aside\"' EXIT",
            f'mkdir "$aside/tree" "$aside/src"; cp -a {given} "$aside/src/{VENDOR_RESET}-{version}"',
            f"dkms add {module} {aside}",
            f"for kernel in {trial}; do dkms build {module} -k $kernel {aside}; done",
        ]
    tree = f"/var/lib/dkms/{VENDOR_RESET}/{version}"
    # `remove` fails where the source is gone; what it leaves would count as built of the new one
    lines.append(f"if [ -e {tree} ]; then dkms remove {module} --all || :; rm -rf {tree}; fi")
    if source != target:
        kept = f"{states.BACKUPS}/{VENDOR_RESET}-{version}"
        lines += [
            f"if [ -e {target} ]; then mkdir -p {states.BACKUPS}; rm -rf {kept}; mv {target} {kept}; fi",
            f"rm -rf {target}.nixherd-new; cp -a {given} {target}.nixherd-new; rm -rf {target}.nixherd-new/.git",
            f"mv {target}.nixherd-new {target}",
        ]
    lines.append(f"dkms add {module}")
    return "\n".join(lines)


@operation(require=require_node)
def vfio() -> Change | NoChange:
    """Bind the devices to vfio-pci, before the drivers that the host would have for them, from the next boot on."""
    settings = settings_of(host)
    return _files(passthrough.vfio(settings, passthrough.named(settings, ask(Pci))))


@operation(require=require_node)
def reset_method() -> Change | NoChange:
    """Have vendor-reset loaded, and the kernel reset the card by it, from the next boot on."""
    settings = settings_of(host)
    if not settings.source:
        return NoChange(f"{VENDOR_RESET} is not asked for")
    return _files(passthrough.reset(passthrough.named(settings, ask(Pci))))


def _files(files: dict[str, str]) -> Change | NoChange:
    """Have these files on the node, each one whole or as it was."""
    differing = passthrough.differing(files, ask(Modules))
    if not differing:
        return NoChange(f"{', '.join(files)}: as wanted")
    if not executing(host):
        for path, text in differing.items():
            for line in text.splitlines()[1:]:
                host.log(f"{path}: {line}")
    return Change(f"write {', '.join(differing)}", partial(_write, files, differing))


def _write(files: dict[str, str], differing: Mapping[str, str]) -> None:
    for path, text in differing.items():
        asking.run_there(
            f'umask 022; mkdir -p "$(dirname {path})"; new=$(mktemp {path}.XXXXXX); cat >"$new"; chmod 644 "$new"; '
            f'sync -- "$new"; mv -- "$new" {path}',
            stdin=text,
            what=f"writing {path}",
        )
    if still := passthrough.differing(files, ask(Modules)):
        raise FleetError(f"{host.data.node}: {', '.join(still)}: not as written; who else writes there?")


@operation(require=require_node)
def initramfs() -> Change | NoChange:
    """Make the initramfs anew of each kernel whose own is older than what vfio-pci is told, for it is told there."""
    boot, modules, settings = ask(Boot), ask(Modules), settings_of(host)
    planned = passthrough.differing(passthrough.vfio(settings, passthrough.named(settings, ask(Pci))), modules)
    written, is_begun = modules["times"].get(VFIO), "initramfs" in boot["notes"]
    with_one = [kernel for kernel in boot["kernels"] if kernel["initrd"] is not None]
    all_anew = VFIO in planned or is_begun or written is None
    stale = [each["version"] for each in with_one if all_anew or (each["initrd"] or 0) <= (written or 0)]
    if not stale:
        names = ", ".join(kernel["version"] for kernel in with_one)
        return NoChange(f"made since {VFIO} was written: the initramfs of {names}")
    return Change(f"make the initramfs of {', '.join(stale)} anew", partial(_make_initramfs, stale))


def _make_initramfs(stale: Sequence[str]) -> None:
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
    asking.run_logged("\n".join(lines), what=f"update-initramfs (the whole of it is in {LOG})")
    made = {kernel["version"]: kernel["initrd"] or 0 for kernel in ask(Boot)["kernels"]}
    since = ask(Modules)["times"].get(VFIO, 0)
    if old := [kernel for kernel in stale if made.get(kernel, 0) <= since]:
        raise FleetError(f"{host.data.node}: update-initramfs made none for {', '.join(old)}; see {LOG}")


@operation(require=require_node)
def command_line() -> Change | NoChange:
    """Have the kernel told what the IOMMU needs, from the next boot on; every other word stays as it is."""
    boot, node, settings = ask(Boot), asking.node_of_host(), settings_of(host)
    loader, words = loader_of(boot), words_for(node["vendor"], settings.words)
    edits = {file: new for file in loader.files if (new := edited(boot, file, words)) is not None}
    stale = lacking_words(boot["entries"], words) if boot["entries"] is not None else []
    if edits:
        for file, new in edits.items():
            before = words_in(file, boot["texts"][file])
            added = [word for word in words_in(file, new) if word not in before]
            host.log(f"{file}: {' '.join(added)} is added to: {' '.join(before)}")
        summary = f"tell the kernel {' '.join(words)} in {', '.join(edits)}"
        return Change(summary, partial(_replace_all, boot, edits, loader, words))
    if stale or "boot-loader" in boot["notes"]:
        why = f"the boot loader was not told {' '.join(stale)} yet" if stale else "an earlier run did not end it"
        return Change(f"{loader.update}: {why}", partial(_update_again, loader, words))
    if words:
        unseen = "" if boot["entries"] is not None else "; what the boot loader has could not be read, and is unknown"
        return NoChange(f"the kernel is told {' '.join(words)} by {', '.join(loader.files)}{unseen}")
    return NoChange("this CPU's IOMMU is on without a word")


def edited(boot: states.BootState, file: str, words: Sequence[str]) -> str | None:
    """Return the file with what it lacks; None where it lacks nothing. Refused where it cannot be edited safely."""
    text = boot["texts"].get(file)
    if text is None:
        raise FleetError(f"{file} is not there, by which this node is booted; write it as /proc/cmdline has it")
    if "\ufffd" in text:
        raise Refused(f"{file}: it is not UTF-8, which an edit might lose; correct it, then run this again")
    words_now = (boot["effective"] or "").split() if file == states.GRUB else text.split()
    added = missing_words(words_now, words)
    return with_words(file, text, added) if added else None


def _replace_all(boot: states.BootState, edits: Mapping[str, str], loader: Loader, words: Sequence[str]) -> None:
    for file, new in edits.items():
        _replace(boot, file, new, loader)
    _require_told(loader, words)


def _update_again(loader: Loader, words: Sequence[str]) -> None:
    asking.run_logged(f"{loader.update}; rm -f {NOTES}/boot-loader", what=f"{loader.update} (see {LOG} on the node)")
    _require_told(loader, words)


def _replace(boot: states.BootState, file: str, new: str, loader: Loader) -> None:
    old = boot["texts"][file]
    if file == states.CMDLINE:
        judge = '[ "$(wc -l <"$1")" -le 1 ] || { echo "it would have more than one line"; exit 1; }'
    else:
        added = [word for word in words_in(file, new) if word not in words_in(file, old)]
        expected = "\n".join(sorted([*(boot["effective"] or "").split(), *added]))
        judge = f"expected={shlex.quote(expected)}\n{states.script('judge_grub.sh')}"
    new = new if new.endswith("\n") else f"{new}\n"
    arguments = [file, _sum(old), _sum(new), states.BACKUPS, NOTES, judge, loader.update, LOG]
    program = f"set -- {' '.join(map(shlex.quote, arguments))}\n{states.script('replace.sh')}"
    asking.run_there(program, stdin=new, what=f"replacing {file}", timeout=asking.LONG)


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _require_told(loader: Loader, words: Sequence[str]) -> None:
    """FleetError unless the boot loader has the words, as far as it can be read."""
    entries = ask(Boot)["entries"]
    if entries is None:
        host.log(f"what {loader.name} has could not be read, and is unknown")
    elif still := lacking_words(entries, words):
        raise FleetError(f"{host.data.node}: {loader.update} ended well, but {loader.name} lacks {' '.join(still)}")

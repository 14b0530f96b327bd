"""vendor-reset, built by DKMS from a source that is on the node."""

import shlex

from pyinfra import host
from pyinfra.api import operation
from pyinfra.operations import apt

from facts.proxmox_host import Boot, Dkms, Kernels
from nixherd.errors import FleetError
from nixherd.proxmox.node.kernel import dkms_rows, headers_of, installed, next_kernel
from nixherd.proxmox.node.states import BACKUPS, LOG, VENDOR_RESET, BootState, Kernel, NodeState
from operations.proxmox_host.asking import ask, decide_on_node, node_of_host, run_logged, source_version, wanted_of
from operations.steps import Commands, do

_NEWEST = ("proxmox-default-kernel", "linux-image-amd64", "linux-image-arm64")


@operation()
def packages() -> Commands:
    """Install dkms and the headers of the kernels that it has to build for; nothing is upgraded or removed for that."""
    yield from decide_on_node(_packages)


def _packages() -> Commands:
    if not wanted_of(host).source:
        host.noop("no module is to be built")
        return
    names = ["dkms"]
    for kernel in built_for(ask(Boot), node_of_host()):
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
    yield from apt.packages._inner(
        packages=sorted(set(names)), no_recommends=True, extra_install_args="--no-remove --no-upgrade"
    )


def built_for(boot: BootState, node: NodeState) -> list[Kernel]:
    """The kernels that need the module: what boots next (each of them, where that is not known) and what runs."""
    following = next_kernel(boot)
    return [
        kernel
        for kernel in boot["kernels"]
        if following in (None, kernel["version"]) or kernel["version"] == node["kernel"]
    ]


@operation()
def vendor_reset() -> Commands:
    """Have DKMS build and install vendor-reset from the directory that is there, for the kernels that need it.

    Another source under the version that is installed is built aside first: what works stays until its successor does.
    """
    yield from decide_on_node(_vendor_reset)


def _vendor_reset() -> Commands:
    wanted = wanted_of(host)
    if not wanted.source:
        host.noop(f"{VENDOR_RESET} is not asked for")
        return
    state, version = ask(Dkms, source=wanted.source), source_version(wanted)
    boot = ask(Boot)
    rows = dkms_rows(state["status"])
    known = any(row.version == version for row in rows)
    others = sorted({row.version for row in rows} - {version})
    same = state["registered"] == state["source"]
    have = installed(rows, version) if same else frozenset()
    wants = [kernel["version"] for kernel in built_for(boot, node_of_host())]
    if not wants:
        raise FleetError(f"{host.data.node}: there is no kernel in /boot that {VENDOR_RESET} could be built for")
    away = [kernel for kernel in wants if kernel not in have]
    if not away and not others:
        host.noop(f"{VENDOR_RESET} {version} is installed for {', '.join(wants)}")
        return
    commands = []
    kernels = " ".join(map(shlex.quote, away))
    module = f"-m {VENDOR_RESET} -v {shlex.quote(version)}"
    if not same:
        commands.append(_replacing(wanted.source, version, kernels if rows else ""))
    elif not known:
        commands.append(f"dkms add {module}")
    each = f"dkms build {module} -k $kernel; dkms install {module} -k $kernel --force"
    commands.append(f"for kernel in {kernels}; do {each}; done")
    commands += [f"dkms remove -m {VENDOR_RESET} -v {shlex.quote(other)} --all" for other in others]
    what = f"build and install {VENDOR_RESET} {version} from {wanted.source} for {', '.join(away)}" if away else ""
    gone = f"remove {VENDOR_RESET} {', '.join(others)} from DKMS" if others else ""
    if not away:
        commands = commands[-len(others) :]

    def act() -> None:
        run_logged("\n".join(commands), what=f"dkms (the whole of it is in {LOG})")
        after = installed(dkms_rows(ask(Dkms, source=wanted.source)["status"]), version)
        if still := [kernel for kernel in away if kernel not in after]:
            raise FleetError(f"{host.data.node}: dkms has not installed it for {', '.join(still)}; see {LOG}")

    yield from do(host, "; ".join(filter(None, (what, gone))), act)


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
        kept = f"{BACKUPS}/{VENDOR_RESET}-{version}"
        lines += [
            f"if [ -e {target} ]; then mkdir -p {BACKUPS}; rm -rf {kept}; mv {target} {kept}; fi",
            f"rm -rf {target}.nixherd-new; cp -a {given} {target}.nixherd-new; rm -rf {target}.nixherd-new/.git",
            f"mv {target}.nixherd-new {target}",
        ]
    lines.append(f"dkms add {module}")
    return "\n".join(lines)

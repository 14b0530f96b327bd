"""The base root: Debian with the lab's stand-ins. Every machine shares its /usr, the installer all of it."""

import shutil
from pathlib import Path

from lab.errors import LabError
from lab.setup.cache import Cache, call, stamp

SUITE = "trixie"
PACKAGES = [
    "nix-bin",
    "openssh-server",
    "systemd-sysv",
    "dbus",
    "sudo",
    "opendoas",
    "busybox-static",
    "git",
    "ca-certificates",
    "iproute2",
    "gdisk",
    "dosfstools",
    "e2fsprogs",
    "fdisk",
    "mtools",
    "fusefat",
    "python3-minimal",
    "age",
    "cpio",
    "procps",
    "curl",
    "less",
    "faketime",
    "fish",  # login shells that are not POSIX
    "tcsh",
    "zsh",
]
UNUSED = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/bug", "usr/share/lintian"]

# Units that are useless without a kernel of their own, or only cost time. They are deleted here, because installed
# systems share this /usr and would otherwise have to mask each of them.
UNITS_TO_DROP = [
    "getty.target.wants/*",
    "local-fs.target.wants/*",
    "timers.target.wants/*",
    "initrd.target.wants/*",
    "multi-user.target.wants/getty.target",
    "multi-user.target.wants/systemd-logind.service",
    "multi-user.target.wants/systemd-ask-password-wall.path",
    "sockets.target.wants/systemd-creds.socket",
    "sockets.target.wants/systemd-hostnamed.socket",
    "sockets.target.wants/systemd-initctl.socket",
    "sockets.target.wants/systemd-pcr*",
    "sockets.target.wants/systemd-sysext.socket",
    "sysinit.target.wants/*.mount",
    "sysinit.target.wants/*.automount",
    "sysinit.target.wants/kmod*",
    "sysinit.target.wants/ldconfig*",
    "sysinit.target.wants/systemd-ask*",
    "sysinit.target.wants/systemd-b*",
    "sysinit.target.wants/systemd-firstboot*",
    "sysinit.target.wants/systemd-h*",
    "sysinit.target.wants/systemd-journal-catalog*",
    "sysinit.target.wants/systemd-machine*",
    "sysinit.target.wants/systemd-modules*",
    "sysinit.target.wants/systemd-pcr*",
    "sysinit.target.wants/systemd-random*",
    "sysinit.target.wants/systemd-sysusers*",
    "sysinit.target.wants/systemd-tpm2*",
    "sysinit.target.wants/systemd-update-done*",
    "systemd-logind.service",
    "dbus-org.freedesktop.login1.service",
    "systemd-hostnamed.service",
    "dbus-org.freedesktop.hostname1.service",
]
GENERATORS_TO_DROP = [
    "debug",
    "getty",
    "gpt-auto",
    "hibernate-resume",
    "rc-local",
    "ssh",
    "system-update",
    "sysv",
    "tpm2",
]
OVERLAY = Path(__file__).parent.parent / "guest" / "base"


def build(cache: Cache, tools: Path) -> Path:
    """Return the base root's directory; the programs in `tools` are on every machine's PATH."""
    debian = cache.make(
        f"debian-{stamp([SUITE, *PACKAGES, *UNUSED])}", f"making the machines' base from Debian {SUITE}", _bootstrap
    )
    recipe = stamp([debian.name, tools.name, *UNITS_TO_DROP, *GENERATORS_TO_DROP, Path(__file__), OVERLAY])
    return cache.make(
        f"base-{recipe}", "adding the lab's stand-ins to the base", lambda path: _finish(debian, tools, path)
    )


def _bootstrap(path: Path) -> None:
    options = [f"--dpkgopt=path-exclude=/{directory}/*" for directory in UNUSED]
    # The suite's own archive, unless apt here is configured to use another Debian mirror.
    mirror = call(["apt-get", "indextargets", "--format", "$(SITE)", "Origin: Debian"]).split() if _has_apt() else []
    call(
        ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", *options, f"--include={','.join(PACKAGES)}"]
        + [SUITE, path, *mirror[:1]]
    )
    if not (path / "usr/bin/nix").exists():
        raise LabError(f"mmdebstrap made no usable root from Debian {SUITE}")


def _has_apt() -> bool:
    return shutil.which("apt-get") is not None


def _finish(debian: Path, tools: Path, path: Path) -> None:
    call(["cp", "-a", "--reflink=auto", debian, path])
    units = path / "usr/lib/systemd/system"
    for pattern in UNITS_TO_DROP:
        for unit in units.glob(pattern):
            unit.unlink()
    for name in GENERATORS_TO_DROP:
        (path / f"usr/lib/systemd/system-generators/systemd-{name}-generator").unlink(missing_ok=True)
    shutil.copytree(OVERLAY, path, dirs_exist_ok=True, symlinks=True)
    shutil.copytree(tools, path / "usr/bin", dirs_exist_ok=True)
    _trim_etc(path)


def _trim_etc(root: Path) -> None:
    """Create the /etc that template and installer start from: networkd and sshd enabled, nothing else of Debian's."""
    wants = root / "etc/systemd/system"
    shutil.rmtree(wants)
    shutil.rmtree(root / "etc/update-motd.d", ignore_errors=True)  # which each SSH session would run, for nobody
    (wants / "multi-user.target.wants").mkdir(parents=True)
    for unit in ("ssh.service", "systemd-networkd.service"):
        (wants / "multi-user.target.wants" / unit).symlink_to(f"/usr/lib/systemd/system/{unit}")
    (root / "etc/machine-id").write_text("")  # empty: every boot gets a new one, without the presets of a first boot
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/fstab").write_text("")
    (root / "etc/nix").mkdir(exist_ok=True)
    (root / "etc/nix/nix.conf").write_text(NIX_CONF)
    (root / "etc/systemd/network").mkdir(exist_ok=True)
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()


# For root without a daemon and without a network.
NIX_CONF = """\
experimental-features = nix-command flakes
sandbox = false
build-users-group =
substituters =
flake-registry =
warn-dirty = false
"""

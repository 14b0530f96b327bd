"""Debian packages with the lab's programs, installed when the programs are missing."""

import os
import shutil
import subprocess
from collections.abc import Callable

from lab.errors import LabError

PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "dnsmasq": "dnsmasq-base",
    "sgdisk": "gdisk",
    "mkfs.vfat": "dosfstools",
    "mke2fs": "e2fsprogs",
    "mtype": "mtools",
    "partx": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "git": "git",
    "ssh": "openssh-client",
    "gpg": "gnupg",
    "patchelf": "patchelf",
}
# The PATH of service users and old logins often lacks the sbin directories.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def missing() -> dict[str, str]:
    """Return the programs that are missing, with their packages."""
    return {program: package for program, package in PROGRAMS.items() if not shutil.which(program, path=SEARCH)}


def install_missing(progress: Callable[[str], None]) -> None:
    """Install what is missing with apt-get. Raises LabError if that is impossible."""
    lacking = missing()
    if not lacking:
        return
    if not shutil.which("apt-get"):
        raise LabError(f"the lab needs these programs on PATH: {', '.join(sorted(lacking))}")
    if os.geteuid() != 0:
        raise LabError(f"run as root, or install first: {' '.join(sorted(set(lacking.values())))}")
    packages = sorted(set(lacking.values()))
    progress(f"installing Debian packages: {' '.join(packages)}")
    install = ["apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", *packages]
    if _apt(install).returncode:  # the package lists are missing or old
        _apt(["apt-get", "update"])
        done = _apt(install)
        if done.returncode:
            raise LabError(f"apt-get could not install {' '.join(packages)}: {done.stdout.strip().splitlines()[-1]}")
    if missing():
        raise LabError(f"still missing after apt-get install: {', '.join(sorted(missing()))}")


def _apt(argv: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )

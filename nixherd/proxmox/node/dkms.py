"""What DKMS says and is told. Pure."""

import re
from dataclasses import dataclass

from nixherd.errors import FleetError
from nixherd.proxmox.node import VENDOR_RESET

# DKMS 2.x: `vendor-reset, 0.1.1, 5.15.39-1-pve, x86_64: installed`, since 2.8.6: `vendor-reset/0.1.1, …`; what was
# added alone has no kernel. Behind the state it warns: `(WARNING! Diff between built and installed module!)`.
_ROW = re.compile(
    r"(?P<name>[^\s/,:]+)(?:/|, )(?P<version>[^\s,:]+)(?:, (?P<kernel>[^\s,:]+), (?P<arch>[^\s,:]+))?: "
    r"(?P<state>[a-z-]+)(?P<more>.*)"
)
_CONF = r"""^[ \t]*{}=(?:"([^"$`]*)"|'([^'$`]*)'|([A-Za-z0-9._+-]*))[ \t]*(?:\#.*)?$"""
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")


@dataclass(frozen=True)
class Row:
    """One module at one version, for one kernel. `state` is DKMS's word: added, built, installed, broken, …"""

    name: str
    version: str
    kernel: str | None
    state: str
    warning: str = ""

    @property
    def is_installed(self) -> bool:
        return self.state == "installed" and not self.warning


def parse(text: str) -> tuple[Row, ...]:
    """The rows of `dkms status`; what else it says is no row."""
    found = (_ROW.fullmatch(line.strip()) for line in text.splitlines())
    return tuple(
        Row(each["name"], each["version"], each["kernel"], each["state"], _warning(each["more"]))
        for each in found
        if each
    )


def _warning(more: str) -> str:
    return more.strip() if "WARNING" in more else ""


def version_of(conf: str | None, directory: str) -> str:
    """The version that a source's dkms.conf is of. FleetError where there is none, or it is another module's."""
    if conf is None:
        raise FleetError(
            f"{directory}/dkms.conf is not there: put the source of {VENDOR_RESET} (the directory that holds its "
            f"dkms.conf) into {directory} on the node, or name another with vendor_reset="
        )
    name, version = _said(conf, "PACKAGE_NAME"), _said(conf, "PACKAGE_VERSION")
    if name != VENDOR_RESET:
        raise FleetError(
            f"{directory}/dkms.conf is of {name or 'no module'}, not of {VENDOR_RESET}; name its directory"
        )
    if version is None or not _VERSION.fullmatch(version):
        raise FleetError(f"{directory}/dkms.conf: PACKAGE_VERSION is no version that is written out; write one")
    return version


def _said(conf: str, name: str) -> str | None:
    found = re.findall(_CONF.format(name), conf, re.MULTILINE)
    return next(filter(None, found[-1]), None) if found else None


def installed(rows: tuple[Row, ...], version: str) -> frozenset[str]:
    """The kernels that this version is installed for."""
    return frozenset(
        row.kernel
        for row in rows
        if row.kernel and row.version == version and row.is_installed and row.name == VENDOR_RESET
    )

"""Volumes that no option of a guest uses, kept in its configuration as `unused0`, `unused1`, …"""

import re
from collections.abc import Iterable

from lab.api import drives
from lab.api.options import is_unused
from lab.api.state import Config, Vm

_MOUNT = re.compile(r"rootfs|mp\d+")


def add(config: Config, volid: str) -> None:
    """Add a volume unless an option names it."""
    if volid in set(used(config)) | {str(config[name]) for name in config if is_unused(name)}:
        return
    config[next(f"unused{n}" for n in range(256) if f"unused{n}" not in config)] = volid


def used(config: Config) -> Iterable[str]:
    """Return the volumes of a guest's disks or mount points, without CD-ROMs, directories and devices of the node."""
    for name, value in config.items():
        if drives.is_drive(name) or _MOUNT.fullmatch(name):
            drive = drives.parse(str(value))
            if ":" in drive["file"] and not drive["file"].startswith("/") and not drives.is_cdrom(drive):
                yield drive["file"]


def kept(vm: Vm, config: Config) -> Config:
    """Return a snapshot's configuration for a rollback, with the disks added since then as unused."""
    config = {**config, **{name: value for name, value in vm.config.items() if is_unused(name)}}
    for volid in used(vm.config):
        add(config, volid)
    return config

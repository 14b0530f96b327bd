"""Chromium, Debian's package: the browser that tests of pages drive."""

import os
import shutil
from pathlib import Path

from lab.errors import LabError
from lab.setup.cache import call


class BrowserMissing(LabError):
    """It is not there, and cannot be installed here."""


def build(cache_directory: Path) -> Path:
    """Return the program, installed where it is missing; none is in the cache. Raises BrowserMissing, LabError."""
    if found := shutil.which("chromium"):
        return Path(found)
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise BrowserMissing("chromium is installed by root with apt-get: install it yourself")
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    install = [*apt, "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", "chromium"]
    try:
        call(install)
    except LabError:  # the package lists are missing or old
        call([*apt, "update"])
        call(install)
    if found := shutil.which("chromium"):
        return Path(found)
    raise LabError("chromium is not on PATH after apt-get install")

"""Prometheus' promtool, from Debian's package, without installing that: it would start a server."""

import shutil
import tempfile
from pathlib import Path

from lab.errors import LabError
from lab.setup.cache import Cache, call, stamp


class AptMissing(LabError):
    """This is not a Debian."""


RECIPE = "prometheus: promtool"


def build(cache_directory: Path) -> Path:
    """Return the program, fetched if missing. Raises AptMissing, LabError."""
    with Cache(cache_directory, print) as cache:
        return cache.make(f"promtool-{stamp([RECIPE])}", "fetching promtool (Debian's package prometheus)", _fetch)


def _fetch(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        directory = Path(name)
        _download(directory)
        [package] = directory.glob("prometheus_*.deb")
        call(["dpkg-deb", "-x", package, directory / "root"])
        (directory / "root/usr/bin/promtool").rename(path)


def _download(directory: Path) -> None:
    """Fetch the package into the directory; apt checks it by its signed lists."""
    if not shutil.which("apt-get"):
        raise AptMissing("promtool is fetched with apt-get, which is not there")
    fetch = ["apt-get", "download", "-o", "APT::Sandbox::User=root", "prometheus"]
    try:
        call(fetch, cwd=directory)
    except LabError:  # the package lists are missing or old
        call(["apt-get", "update"])
        call(fetch, cwd=directory)

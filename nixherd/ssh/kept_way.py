"""The way to a machine, written down for OpenSSH where it stays when the run that found it is over."""

import contextlib
from dataclasses import replace
from pathlib import Path

from nixherd.base.files import write_whole
from nixherd.ssh.destination import Destination


def keep(way: Destination, directory: str | Path) -> Destination:
    """The same way with an ssh_config and the pinned keys in `directory`, which is made. OSError, Usage."""
    place = Path(directory)
    hops = []
    for number, jump in enumerate(way.route.jumps, 1):
        keys = "".join(_read(path) for path in jump.known_hosts)
        hops.append(replace(jump, known_hosts=(_write(place / f"known_hosts-hop-{number}", keys),)))
    known_hosts = _write(place / "known_hosts", way.known_hosts.read_text())
    kept = replace(way, known_hosts=known_hosts, route=replace(way.route, jumps=tuple(hops)), config=None)
    return replace(kept, config=_write(place / "config", kept.text))


def _read(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):  # as OpenSSH takes it: one that is not there names no key
        return path.read_text()
    return ""


def _write(path: Path, text: str) -> Path:
    write_whole(path, text)
    return path

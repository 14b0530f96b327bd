"""A flake that is named by a reference: locked, and where its files are."""

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from nixherd.base.errors import FleetError, ProcessFailed, Usage
from nixherd.base.process import run
from nixherd.nix import commands as nix
from nixherd.nix.errors import last_error

_TIMEOUT = 600.0  # seconds


@dataclass(frozen=True)
class Flake:
    """`url` is locked: it names this very revision, wherever the reference leads later. Its files are at `path`.

    They are input, as are those of a checkout: `nixherd.fleet.world` tells what their evaluation sees.
    """

    url: str
    path: Path
    revision: str | None


def lock_flake(reference: str) -> Flake:
    """Lock a flake reference. Raise Usage for what is not one, FleetError when it cannot be fetched."""
    if not reference or reference.startswith("-") or not reference.isprintable() or "#" in reference:
        raise Usage(f"flake={reference} is not a flake reference; write one like github:owner/fleet")
    try:
        document = json.loads(run(nix.flake_metadata(reference), timeout=_TIMEOUT).stdout)
        url = str(document["url"])
        return Flake(url, _below(Path(document["path"]), url), document.get("revision"))
    except ProcessFailed as error:
        if not error.stderr:
            raise
        if "requires lock file changes" in error.stderr:
            what = "its flake.lock is missing or lacks an input; `nix flake lock` there, and commit it"
            raise FleetError(f"flake={reference}: {what}") from error
        raise FleetError(f"flake={reference}: {last_error(error.stderr)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FleetError(f"flake={reference}: nix flake metadata printed something unexpected ({error!r})") from error


def _below(source: Path, url: str) -> Path:
    """Return where a flake is in the source that a reference names: its `dir=`."""
    directory = source.joinpath(*parse_qs(urlsplit(url).query).get("dir", ()))
    if not directory.resolve().is_relative_to(source):
        raise Usage(f"flake={url}: its directory is not in it")
    return directory

"""One build for the whole selection, shared by every host of a run; and what changes between two closures."""

import hashlib
import os
import re
import shlex
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import FleetError, ProcessFailed
from nixherd.base.names import human
from nixherd.base.process import run
from nixherd.base.waiting import OncePer
from nixherd.nix import commands as nix
from nixherd.nix.commands import Evaluated, closure_sizes
from nixherd.nix.errors import last_error
from nixherd.nix.evaluator import Evaluator
from nixherd.nix.image import KEXEC_INSTALLER, Image, fetched, require_gzip

BUILD_DEADLINE = 4 * 3600.0  # seconds
# When something is wrong with one of many, so many of them are tried alone at the same time.
_one_by_one = threading.BoundedSemaphore(os.cpu_count() or 1)


class Builder:
    """Builds what the evaluator's flake has; each build is made once in a run, and held by GC roots until its end."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._builds: OncePer[tuple[str, ...], list[str]] = OncePer(f"{evaluator.path}: building")
        self._installers: OncePer[str, list[str]] = OncePer(f"{evaluator.path}: looking for the installer")
        self._tarballs: OncePer[Image, Path] = OncePer(f"{evaluator.path}: building the installer")

    def build(self, host_ids: Sequence[str], host_id: str) -> None:
        """Build toplevel and disko script of these hosts, all in one go.

        FleetError when those of `host_id` cannot be built; the others go on.
        """
        self.realise({config.host_id: config.derivations for config in self._good(host_ids)}, host_id)

    def realise(
        self,
        derivations: Mapping[str, Sequence[str]],
        host_id: str,
        stream: Callable[[str], None] | None = None,
        fetch: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        """Build what these hosts need, all in one go. `stream` gets the lines of Nix's log.

        `fetch` brings what is to be built from where that is done, so that nothing is left to build here.

        FleetError when those of `host_id` cannot be built; the others go on.
        """
        installables = tuple(sorted({f"{drv}^*" for drvs in derivations.values() for drv in drvs}))
        try:
            with self._builds[installables] as build:  # by what is built: an evaluation may change within a run
                if build.is_empty:
                    if fetch:
                        fetch(installables)
                    build.value = self._build(installables, stream)
        except FleetError:
            if set(derivations) == {host_id}:
                raise
            with _one_by_one:
                self.realise({host_id: derivations[host_id]}, host_id, stream, fetch)

    def _good(self, host_ids: Sequence[str]) -> Iterator[Evaluated]:
        for host_id in host_ids:
            with suppress(FleetError):
                yield self.evaluator.evaluate(host_ids, host_id)

    def require_installer(self, image: Image) -> None:
        """FleetError unless the image is there, or the flake has one; whether it can be built shows when it is."""
        if image.sha256 is not None:
            return
        if image.given is not None:
            require_gzip(Path(image.given))
            return
        with self._installers[image.packages] as names:
            if names.is_empty:
                names.value = self._packages(image.packages)
        if KEXEC_INSTALLER not in names.value:
            remedy = (
                "add the installer of nixos-images, as the reference fleet does in nix/installer.nix, or give an image "
                "(--kexec FILE, or --kexec URL --kexec-sha256 HASH)"
            )
            raise FleetError(f"{self.evaluator.path}/flake.nix: it has no {image.attribute}; {remedy}")

    def _packages(self, packages: str) -> list[str]:
        try:
            return nix.parse_names(self.evaluator.ask(nix.names(self.evaluator.flake, packages)))
        except FleetError as error:
            if f"it has no {packages}" in str(error):
                return []
            raise

    def kexec_tarball(self, image: Image) -> Path:
        """The installer's kexec tarball; the flake's is built by itself, so that its lock file pins it too."""
        with self._tarballs[image] as tarball:
            if tarball.is_empty:
                tarball.value = self._tarball_of(image)
            return tarball.value

    def _tarball_of(self, image: Image) -> Path:
        if image.sha256 is not None:
            file = Path(fetched(str(image.given), image.sha256))
        elif image.given is not None:
            file = Path(image.given)
        else:
            [out] = self._build([f"{self.evaluator.flake}#{image.attribute}"])
            tarballs = sorted(Path(out).glob("*.tar.gz"))
            if not tarballs:
                what = f"{image.attribute} holds no .tar.gz; take it from nixos-images"
                raise FleetError(f"{self.evaluator.path}/flake.nix: {what}")
            return tarballs[0]
        require_gzip(file)
        return file

    def _build(self, installables: Sequence[str], stream: Callable[[str], None] | None = None) -> list[str]:
        root = self.evaluator.run.gc_roots / hashlib.sha256(" ".join(installables).encode()).hexdigest()[:32]
        try:
            done = run(nix.build(installables, str(root)), timeout=BUILD_DEADLINE, stream=stream)
        except ProcessFailed as error:
            if not error.stderr:
                raise
            raise FleetError(f"{self.evaluator.flake}: nix build failed: {last_error(error.stderr)}") from error
        return done.stdout.split()


# What changes between two closures

_NAME = re.compile(r"^/nix/store/[0-9a-df-np-sv-z]{32}-(.+)$")
_VERSION = re.compile(r"^(.*?)-([^a-zA-Z].*)$")
_OUTPUTS = re.compile(r"-(bin|dev|doc|info|lib|man|out|static|debug|devdoc|data|getent|mount|login|swap|terminfo)$")


@dataclass(frozen=True, order=True)
class Change:
    """A package that differs. Versions are sorted, "" where a path has none; `size` is in bytes, more is positive."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    size: int

    def __str__(self) -> str:
        size = f", {_signed(self.size)}" if self.size else ""
        if not self.before:
            return f"{self.name}: added {_versions(self.after)}{size}".replace("added ,", "added,").rstrip()
        if not self.after:
            return f"{self.name}: removed {_versions(self.before)}{size}".replace("removed ,", "removed,").rstrip()
        if self.before == self.after:
            return f"{self.name}: {_versions(self.after)} rebuilt{size}".replace(":  ", ": ")
        return f"{self.name}: {_versions(self.before) or '∅'} → {_versions(self.after) or '∅'}{size}"


@dataclass(frozen=True)
class ClosureDiff:
    """`before` and `after` are the closures' whole sizes, in bytes."""

    changes: tuple[Change, ...]
    before: int
    after: int


def closure_listing(path: str) -> str:
    """Return the shell command that lists a closure on a machine; it prints nothing where the path does not exist."""
    return f"[ ! -e {path} ] || {shlex.join(closure_sizes(path))}"


def parse_listing(text: str) -> dict[str, int]:
    """Return sizes of the NARs by path, as `nix path-info --recursive --size` prints them."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def closure_diff(before: Mapping[str, int], after: Mapping[str, int]) -> ClosureDiff:
    """Compare the sizes of all paths of two closures."""
    old, new = _packages(before), _packages(after)
    changes = []
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name, {}), new.get(name, {})
        if was.keys() == now.keys():
            continue
        versions = tuple(tuple(sorted({_split(path)[1] for path in paths})) for paths in (was, now))
        changes.append(Change(name, versions[0], versions[1], sum(now.values()) - sum(was.values())))
    return ClosureDiff(tuple(changes), sum(before.values()), sum(after.values()))


def _packages(closure: Mapping[str, int]) -> dict[str, dict[str, int]]:
    packages: dict[str, dict[str, int]] = defaultdict(dict)
    for path, size in closure.items():
        packages[_split(path)[0]][path] = size
    return packages


def _split(path: str) -> tuple[str, str]:
    """Name and version in a store path."""
    named = _NAME.match(path)
    whole = _OUTPUTS.sub("", named[1] if named else path)
    versioned = _VERSION.match(whole)
    return (versioned[1], versioned[2]) if versioned else (whole, "")


def _versions(versions: tuple[str, ...]) -> str:
    return ", ".join(version for version in versions if version)


def _signed(size: int) -> str:
    return ("+" if size > 0 else "-") + human(abs(size))

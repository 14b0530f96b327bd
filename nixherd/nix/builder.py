"""One build for the whole selection, shared by every host of a run."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nixherd.base.errors import FleetError, ProcessFailed
from nixherd.base.once import Once, OncePer
from nixherd.base.process import run
from nixherd.nix import commands as nix
from nixherd.nix.commands import Evaluated
from nixherd.nix.errors import last_error
from nixherd.nix.evaluator import Evaluator

KEXEC_INSTALLER = "packages.x86_64-linux.kexec-installer"
BUILD_DEADLINE = 4 * 3600.0  # seconds
# When something is wrong with one of many, so many of them are tried alone at the same time.
_one_by_one = threading.BoundedSemaphore(os.cpu_count() or 1)


class Builder:
    """Builds what the evaluator's flake has; each build is made once in a run, and held by GC roots until its end."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._builds: OncePer[tuple[str, ...], list[str]] = OncePer(f"{evaluator.path}: building")
        self._installer: Once[str] = Once(f"{evaluator.path}: looking for the installer")
        self._tarball: Once[Path] = Once(f"{evaluator.path}: building the installer")

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

    def require_installer(self) -> None:
        """FleetError unless the flake has the kexec installer; whether it can be built shows when it is."""
        packages, _, name = KEXEC_INSTALLER.rpartition(".")
        with self._installer as names:
            if names.is_empty:
                names.value = self.evaluator.ask(nix.names(self.evaluator.flake, packages))
        if name not in nix.parse_names(names.value):
            remedy = "add the installer of nixos-images, as the reference fleet does in nix/installer.nix"
            raise FleetError(f"{self.evaluator.path}/flake.nix: it has no {KEXEC_INSTALLER}; {remedy}")

    def kexec_tarball(self) -> Path:
        """The installer's kexec tarball, built by the flake itself, so that its lock file pins the installer too."""
        with self._tarball as tarball:
            if tarball.is_empty:
                [out] = self._build([f"{self.evaluator.flake}#{KEXEC_INSTALLER}"])
                tarballs = sorted(Path(out).glob("*.tar.gz"))
                if not tarballs:
                    what = f"{KEXEC_INSTALLER} holds no .tar.gz; take it from nixos-images"
                    raise FleetError(f"{self.evaluator.path}/flake.nix: {what}")
                tarball.value = tarballs[0]
            return tarball.value

    def _build(self, installables: Sequence[str], stream: Callable[[str], None] | None = None) -> list[str]:
        root = self.evaluator.run.gc_roots / hashlib.sha256(" ".join(installables).encode()).hexdigest()[:32]
        try:
            done = run(nix.build(installables, str(root)), timeout=BUILD_DEADLINE, stream=stream)
        except ProcessFailed as error:
            if not error.stderr:
                raise
            raise FleetError(f"{self.evaluator.flake}: nix build failed: {last_error(error.stderr)}") from error
        return done.stdout.split()

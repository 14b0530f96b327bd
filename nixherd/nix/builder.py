"""One build for the whole selection, shared by every host of a run."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nixherd.errors import FleetError, ProcessFailed
from nixherd.nix import commands as nix
from nixherd.nix.commands import Evaluated
from nixherd.nix.errors import last_error
from nixherd.nix.evaluator import ask, evaluate
from nixherd.process import run
from nixherd.session import Session

KEXEC_INSTALLER = "packages.x86_64-linux.kexec-installer"
BUILD_DEADLINE = 4 * 3600.0  # seconds
# When something is wrong with one of many, so many of them are tried alone at the same time.
_one_by_one = threading.BoundedSemaphore(os.cpu_count() or 1)


def build(session: Session, host_ids: Sequence[str], host_id: str) -> None:
    """Build toplevel and disko script of these hosts, all in one go, once per run; held by GC roots.

    FleetError when those of `host_id` cannot be built; the others go on.
    """

    realise(session, {about.host_id: about.derivations for about in _good(session, host_ids)}, host_id)


def realise(
    session: Session,
    derivations: Mapping[str, Sequence[str]],
    host_id: str,
    stream: Callable[[str], None] | None = None,
    fetch: Callable[[Sequence[str]], None] | None = None,
) -> None:
    """Build what these hosts need, all in one go, once per run; held by GC roots. `stream` gets the lines of Nix's log.

    `fetch` brings what is to be built from where that is done, so that nothing is left to build here.

    FleetError when those of `host_id` cannot be built; the others go on.
    """
    installables = sorted({f"{drv}^*" for drvs in derivations.values() for drv in drvs})
    try:
        # by what is built: an evaluation may change within a run
        session.once(("build", *installables), lambda: _build(session, installables, stream, fetch))
    except FleetError:
        if set(derivations) == {host_id}:
            raise
        with _one_by_one:
            realise(session, {host_id: derivations[host_id]}, host_id, stream, fetch)


def _good(session: Session, host_ids: Sequence[str]) -> Iterator[Evaluated]:
    for host_id in host_ids:
        with suppress(FleetError):
            yield evaluate(session, host_ids, host_id)


def require_installer(session: Session) -> None:
    """FleetError unless the flake has the kexec installer; whether it can be built shows when it is."""
    packages, _, name = KEXEC_INSTALLER.rpartition(".")
    has = session.once("installer", lambda: ask(session, nix.names(session.flake, packages)))
    if name not in nix.parse_names(has):
        raise FleetError(
            f"{session.fleet.path}/flake.nix: it has no {KEXEC_INSTALLER}; add the installer of nixos-images, "
            "as the reference fleet does in nix/installer.nix"
        )


def kexec_tarball(session: Session) -> Path:
    """The installer's kexec tarball, built by the flake itself, so that its lock file pins the installer too."""

    def compute() -> Path:
        [out] = _build(session, [f"{session.flake}#{KEXEC_INSTALLER}"])
        tarballs = sorted(Path(out).glob("*.tar.gz"))
        if not tarballs:
            raise FleetError(
                f"{session.fleet.path}/flake.nix: {KEXEC_INSTALLER} holds no .tar.gz; take it from nixos-images"
            )
        return tarballs[0]

    return session.once("kexec-installer", compute)


def _build(
    session: Session,
    installables: Sequence[str],
    stream: Callable[[str], None] | None = None,
    fetch: Callable[[Sequence[str]], None] | None = None,
) -> list[str]:
    if fetch:
        fetch(installables)
    root = session.gc_roots / hashlib.sha256(" ".join(installables).encode()).hexdigest()[:32]
    try:
        done = run(nix.build(installables, str(root)), timeout=BUILD_DEADLINE, stream=stream)
    except ProcessFailed as error:
        if not error.stderr:
            raise
        raise FleetError(f"{session.flake}: nix build failed: {last_error(error.stderr)}") from error
    return done.stdout.split()

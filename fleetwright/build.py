"""One evaluation and one build for the whole selection, shared by every host of a run."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fleetwright import nix
from fleetwright.errors import FleetError, ProcessFailed
from fleetwright.nix import Evaluated
from fleetwright.nix_errors import explain, last_error
from fleetwright.process import run
from fleetwright.session import Session

KEXEC_INSTALLER = "packages.x86_64-linux.kexec-installer"
EVALUATION_DEADLINE = 1800.0  # seconds
BUILD_DEADLINE = 4 * 3600.0
# When something is wrong with one of many, so many of them are tried alone at the same time.
_one_by_one = threading.BoundedSemaphore(os.cpu_count() or 1)


def evaluate(session: Session, host_ids: Sequence[str], host_id: str) -> Evaluated:
    """What the flake says of one host; all of `host_ids` of its kind are evaluated together, once per run.

    FleetError when the flake does not have this host, or cannot be evaluated for it. A host that is wrong leaves
    the others going: then each is evaluated alone.
    """
    homes = {host.id for host in session.fleet.hosts.values() if not host.is_nixos}
    is_nixos = host_id not in homes
    alike = tuple(each for each in host_ids if (each not in homes) == is_nixos)
    try:
        found = session.once(("evaluate", alike), lambda: _describe(session, alike, is_nixos=is_nixos))
    except FleetError:
        if alike == (host_id,):
            raise
        with _one_by_one:
            return evaluate(session, (host_id,), host_id)
    about = found.get(host_id)
    if about is None:
        place = "nixosConfigurations" if is_nixos else "homeConfigurations"
        raise FleetError(f"{session.fleet.path}/flake.nix: it has no {place}.{host_id}; add it")
    return about


def _describe(session: Session, host_ids: Sequence[str], *, is_nixos: bool) -> dict[str, Evaluated | None]:
    describe = nix.describe if is_nixos else nix.describe_homes
    return nix.parse_description(_eval(session, describe(session.flake, host_ids)))


def _eval(session: Session, argv: Sequence[str]) -> str:
    try:
        return run(argv, timeout=EVALUATION_DEADLINE).stdout
    except ProcessFailed as error:
        if not error.stderr:
            raise
        raise FleetError(explain(error.stderr, Path(session.fleet.path))) from error


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
) -> None:
    """Build what these hosts need, all in one go, once per run; held by GC roots. `stream` gets the lines of Nix's log.

    FleetError when those of `host_id` cannot be built; the others go on.
    """
    installables = sorted({f"{drv}^*" for drvs in derivations.values() for drv in drvs})
    try:
        # by what is built: an evaluation may change within a run
        session.once(("build", *installables), lambda: _build(session, installables, stream))
    except FleetError:
        if set(derivations) == {host_id}:
            raise
        with _one_by_one:
            realise(session, {host_id: derivations[host_id]}, host_id, stream)


def _good(session: Session, host_ids: Sequence[str]) -> Iterator[Evaluated]:
    for host_id in host_ids:
        with suppress(FleetError):
            yield evaluate(session, host_ids, host_id)


def require_installer(session: Session) -> None:
    """FleetError unless the flake has the kexec installer; whether it can be built shows when it is."""
    packages, _, name = KEXEC_INSTALLER.rpartition(".")
    has = session.once("installer", lambda: _eval(session, nix.names(session.flake, packages)))
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


def ahead(*work: Callable[[], object]) -> None:
    """Begin in the background what will be needed soon; who needs it waits for it, and sees what became of it."""

    def quietly(each: Callable[[], object]) -> None:
        try:
            each()
        except (FleetError, OSError):
            return  # raised anew where the result is needed

    for each in work:
        threading.Thread(target=quietly, args=(each,), daemon=True).start()


def _build(session: Session, installables: Sequence[str], stream: Callable[[str], None] | None = None) -> list[str]:
    root = session.gc_roots / hashlib.sha256(" ".join(installables).encode()).hexdigest()[:32]
    try:
        done = run(nix.build(installables, str(root)), timeout=BUILD_DEADLINE, stream=stream)
    except ProcessFailed as error:
        if not error.stderr:
            raise
        raise FleetError(f"{session.flake}: nix build failed: {last_error(error.stderr)}") from error
    return done.stdout.split()

"""One evaluation and one build for the whole selection, shared by every host of a run."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from fleetwright import nix
from fleetwright.errors import FleetError, ProcessFailed
from fleetwright.nix import Evaluated
from fleetwright.process import run
from fleetwright.session import Session

KEXEC_INSTALLER = "packages.x86_64-linux.kexec-installer"
EVALUATION_DEADLINE = 1800.0  # seconds
BUILD_DEADLINE = 4 * 3600.0
T = TypeVar("T")


def evaluate(session: Session, host_ids: Sequence[str]) -> dict[str, Evaluated]:
    """What the flake says of these hosts; evaluated once per run. FleetError names a host that it does not have."""

    def compute() -> dict[str, Evaluated | None]:
        done = run(nix.describe(session.fleet.path, host_ids), timeout=EVALUATION_DEADLINE)
        return nix.parse_description(done.stdout)

    found = session.once(("evaluate", tuple(host_ids)), compute)
    missing = [host_id for host_id in host_ids if found.get(host_id) is None]
    if missing:
        raise FleetError(f"{session.fleet.path}/flake.nix: nixosConfigurations has no {', '.join(missing)}; add it")
    return {host_id: about for host_id, about in found.items() if about is not None}


def build(session: Session, host_ids: Sequence[str]) -> None:
    """Build toplevel and disko script of these hosts, all in one go, once per run; held by GC roots."""

    def compute() -> bool:
        derivations = [f"{drv}^*" for about in evaluate(session, host_ids).values() for drv in about.derivations]
        _build(session, derivations, "host-" + "-".join(host_ids)[:100])
        return True

    session.once(("build", tuple(host_ids)), compute)


def kexec_tarball(session: Session) -> Path:
    """The installer's kexec tarball, built by the flake itself, so that its lock file pins the installer too."""

    def compute() -> Path:
        [out] = _build(session, [f"{session.fleet.path}#{KEXEC_INSTALLER}"], "kexec-installer")
        tarballs = sorted(Path(out).glob("*.tar.gz"))
        if not tarballs:
            raise FleetError(
                f"{session.fleet.path}/flake.nix: {KEXEC_INSTALLER} holds no .tar.gz; take it from nixos-images"
            )
        return tarballs[0]

    return session.once("kexec-installer", compute)


def ahead(*work: Callable[[], object]) -> None:
    """Begin in the background what will be needed soon; who needs it waits for it, or does it again and sees why."""

    def quietly(each: Callable[[], object]) -> None:
        try:
            each()
        except FleetError:
            return  # raised anew where the result is needed

    for each in work:
        threading.Thread(target=quietly, args=(each,), daemon=True).start()


def _build(session: Session, installables: Sequence[str], root: str) -> list[str]:
    roots = session.state_directory / ".gcroots"
    roots.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        done = run(nix.build(installables, str(roots / root)), timeout=BUILD_DEADLINE)
    except ProcessFailed as error:
        raise FleetError(f"{error}; nothing was changed by this") from error
    return done.stdout.split()

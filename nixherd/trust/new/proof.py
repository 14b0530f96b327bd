"""Whether a host that is to be evaluates: in a copy of the fleet as its flake sees it, with the new files in it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from nixherd.errors import FleetError
from nixherd.fleet import lockout
from nixherd.fleet.git import Repository
from nixherd.fleet.models import Fleet
from nixherd.nix.commands import Evaluated
from nixherd.nix.evaluator import Evaluator
from nixherd.nix.flakes import Flake
from nixherd.proxmox import preflight
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.proxmox.provisioning_survey import host_facts, survey
from nixherd.run import Run
from nixherd.trust.new.host import Kind, NewHost


def evaluated(run: Run, fleet: Fleet, host: NewHost, url: str) -> Evaluated:
    """What the flake at `url` says of the host. FleetError where it does not, or where it is not as it has to be."""
    return Evaluator(fleet, run, lambda: Flake(url, Path(fleet.path), None)).evaluate((host.id,), host.id)


def copied(root: Path, repository: Repository | None, edited: Mapping[str, bytes], target: Path) -> str:
    """A copy of the fleet's repository at `target`, with these files in it; returns the reference of its flake.

    A flake has what git knows of, as it is now; without a repository all that is there.
    """
    shutil.rmtree(target, ignore_errors=True)
    if repository is None:
        shutil.copytree(root, target, symlinks=True, ignore=shutil.ignore_patterns(".git", "result", "result-*"))
        top, prefix = root, ""
    else:
        top, prefix = repository.top, repository.prefix
        whole = repository if top == repository.directory else Repository.around(top)
        assert whole is not None, "it is one"
        for path in whole.tracked(["."]):
            _copy(top / path, target / path)
    for path, content in edited.items():
        place = target / prefix / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_bytes(content)
    directory = f"?dir={quote(prefix.rstrip('/'))}" if prefix else ""
    return f"path:{quote(str(target))}{directory}"


def _copy(source: Path, target: Path) -> None:
    """A file or a link as it is; what is gone, or is a submodule, stays away."""
    if source.is_symlink() or source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)


def problem(host: NewHost, about: Evaluated, fleet: Fleet) -> str | None:
    """Why what it evaluates to is not the host that was meant, None where it is. What is not known is not judged."""
    if host.kind is Kind.HOME:
        return None
    facts, wanted = host_facts(about), host.machine
    if about.hostname != host.id:
        return f"{host.id}: its system would be called {about.hostname}; see what sets networking.hostName"
    if about.root_access is False:
        return str(next(iter(lockout.findings(fleet, {host.id: about}))))
    if facts.ssh is False:
        return f"{host.id}: its system would have no SSH server; see what sets services.openssh.enable"
    if host.kind.has_disk and facts.boot_loader is not None and facts.boot_loader.firmware != wanted.firmware:
        return (
            f"{host.id}: its system installs {facts.boot_loader}, which needs bios {facts.boot_loader.firmware}, "
            f"and is to start with {wanted.firmware}; see what sets boot.loader"
        )
    if host.kind.has_disk and about.devices != (wanted.device,):
        return f"{host.id}: disko would format {', '.join(about.devices) or 'nothing'}, not {wanted.device}"
    return None


def obstacles(token_file: Path, fleet: Fleet, host: NewHost, about: Evaluated) -> tuple[str, ...]:
    """What would keep the new VM from being provisioned as things are now; only GETs are sent."""
    try:
        vm = fleet.vms[host.id]
        seen = survey(Hypervisor(fleet, token_file), vm)
        found = preflight.preflight(fleet, vm, fleet.hosts[host.id], host_facts(about), seen)
        return tuple(f"{host.id}: provisioning would be refused now: {each}" for each in found)
    except FleetError as error:
        return (f"{host.id}: whether it could be provisioned now is unknown: {error}",)

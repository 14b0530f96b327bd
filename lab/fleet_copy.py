"""Keeps the lab's copy of the fleet in its start state; `lab.fleet` defines its content."""

import hashlib
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from lab.errors import LabError
from lab.machines.network import GATEWAY
from lab.places import Places
from lab.setup.cache import stamp


def make_fleet(
    places: Places, hosts: int, inside: Callable[[list[str], Path], list[str]], environment: Mapping[str, str]
) -> bool:
    """Recreate the copy if its sources or the copy changed; return True if so. Raises LabError.

    `inside` and `environment` say how to run a command in the lab, where /nix is.
    """
    parts = [
        places.checkout / "fleet",
        *(places.checkout / "lab" / part for part in ("nixpkgs", "inputs", "options", "fleet.py")),
    ]
    key = stamp([*(part for part in parts if part.exists()), str(hosts), fingerprint(places), _key(places)])
    note = places.state / "fleet.stamp"
    if note.exists() and note.read_text() == f"{key} {_fleet_state(places)}":
        return False
    note.unlink(missing_ok=True)
    kept = places.state / f"fleet-as-made-{key}"
    if kept.exists():
        _replace(kept, places.state)
    else:
        _make(places, hosts, inside, environment)
        _keep(places, kept)
    note.write_text(f"{key} {_fleet_state(places)}")
    return True


def _make(
    places: Places, hosts: int, inside: Callable[[list[str], Path], list[str]], environment: Mapping[str, str]
) -> None:
    shutil.rmtree(places.fleet, ignore_errors=True)
    argv = inside([sys.executable, "-m", "lab.fleet_copy", str(hosts)], places.checkout)
    done = subprocess.run(argv, env=dict(environment), capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"the fleet's copy cannot be made: {' / '.join(done.stderr.strip().splitlines()[-3:])}")


def _keep(places: Places, kept: Path) -> None:
    """Keep the new copy in the cache, atomically, so that the next reset need not build it again."""
    for old in places.state.glob("fleet-as-made-*"):
        shutil.rmtree(old, ignore_errors=True)
    making = places.state / "fleet-as-made"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    _replace(places.state, making)
    making.rename(kept)


def _replace(source: Path, target: Path) -> None:
    """Copy the fleet and the stand-ins that its lock names to another directory, preserving times."""
    for name in ("fleet", "fleet-inputs"):
        shutil.rmtree(target / name, ignore_errors=True)
        shutil.copytree(source / name, target / name, symlinks=True)


def _fleet_state(places: Places) -> str:
    """Return a value that changes with every commit and every changed file of the copy."""
    if not (places.fleet / ".git").exists():
        return "none"
    output = ""
    for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"]):
        output += subprocess.run(["git", "-C", places.fleet, *arguments], capture_output=True, text=True).stdout
    return hashlib.sha256(output.encode()).hexdigest()


def fingerprint(places: Places) -> str:
    """Return the SHA-256 of the API's certificate in Proxmox' notation: AA:BB:…"""
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(places.certificate.read_text())).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def _key(places: Places) -> str:
    return (places.home / ".ssh" / "id_ed25519.pub").read_text().strip()


def _recipient(places: Places) -> str:
    """Return the operator's age key; create the identity once, where sops looks for it."""
    identity = places.home / ".config" / "sops" / "age" / "keys.txt"
    if not identity.exists():
        identity.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["age-keygen", "-o", identity], capture_output=True, check=True)
    return subprocess.run(["age-keygen", "-y", identity], capture_output=True, text=True, check=True).stdout.strip()


def main(arguments: list[str]) -> None:
    """Make the copy with that many managed machines, inside the lab's namespace."""
    from lab.fleet import prepare_fleet

    places = Places.here()
    prepare_fleet(
        places.fleet,
        nix=shutil.which("nix") or "nix",
        machines=int(arguments[0]),
        endpoint_host=GATEWAY,
        fingerprint=fingerprint(places),
        operator_key=_key(places),
        recipient=_recipient(places),
        env=dict(os.environ),
    )


if __name__ == "__main__":
    main(sys.argv[1:])

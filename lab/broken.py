"""Makes the next system of a host fail in a known way: `python -m lab break HOST FAULT…`.

Each fault is a NixOS module in `lab/faults/`; its first line describes the effect.
"""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import LabError

FAULTS = Path(__file__).resolve().parent / "faults"


def faults() -> dict[str, str]:
    """Return each fault's description by name."""
    return {path.stem: path.read_text().partition("\n")[0].lstrip("# ") for path in sorted(FAULTS.glob("*.nix"))}


def break_host(fleet: Path, host: str, names: Sequence[str], env: Mapping[str, str]) -> None:
    """Set the faults of a host in the fleet's copy, replacing earlier ones, and commit. Raises LabError."""
    directory = fleet / "hosts" / host
    configuration = directory / "configuration.nix"
    if not configuration.is_file():
        raise LabError(f"the fleet has no host {host} with a configuration.nix")
    if unknown := [name for name in names if name not in faults()]:
        raise LabError(f"unknown fault {unknown[0]}; known faults: {', '.join(faults())}")
    place = directory / "faults"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in names:
        shutil.copy(FAULTS / f"{name}.nix", place)
    imports = " ".join(f"./{name}.nix" for name in names)
    (place / "default.nix").write_text(f"{{ imports = [ {imports} ]; }}\n")
    text = configuration.read_text()
    if "./faults\n" not in text:
        if "imports = [\n" not in text:
            raise LabError(f"{configuration} has no list of imports to add the faults to")
        configuration.write_text(text.replace("imports = [\n", "imports = [\n    ./faults\n", 1))
    commit = [
        "commit",
        "--quiet",
        "--no-verify",
        "--allow-empty",
        "--message",
        f"lab: {host}: {', '.join(names) or 'mended'}",
    ]
    for argv in (["add", "--all"], commit):
        done = subprocess.run(["git", "-C", fleet, *argv], env=dict(env), capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"git {argv[0]} failed: {(done.stderr or done.stdout).strip()}")

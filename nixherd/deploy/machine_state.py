"""What a machine says of itself while it is installed: which system runs, and how far an installation has come."""

from collections.abc import Sequence
from typing import TypedDict

from nixherd.deploy.protocol import part
from nixherd.errors import FleetError
from nixherd.fleet.revisions import of_running
from nixherd.ssh.transient_unit import DIRECTORY

_KEYS = (
    "macs",
    "id",
    "variant",
    "boot_id",
    "hostname",
    "current_system",
    "booted_system",
    "noted",
    "version",
    "root",
    "mnt",
    "mark",
)


class MachineState(TypedDict):
    """Every value is None where the machine does not have it."""

    id: str | None
    """ID of /etc/os-release: `nixos`, `debian`, …"""
    variant: str | None
    """VARIANT_ID of /etc/os-release: `installer` in a NixOS installer"""
    boot_id: str | None
    hostname: str | None
    current_system: str | None
    booted_system: str | None
    revision: str | None
    """the fleet's that the running system is of, by the machine's note, else by the system's own word"""
    root: str | None
    """the source of the file system at /"""
    mnt: str | None
    """the source of the file system at /mnt"""
    mark: str | None
    """what our pipeline wrote into the installer that it booted"""
    macs: list[str]
    """of its network interfaces, in lower case; loopback's is left out"""
    jobs: dict[str, str]
    """by name of a job: its key and exit status"""


def machine_script() -> str:
    """Print it; nothing has to be installed there for that."""
    return f"""
say() {{ printf '%s=%s\\n' "$1" "$2"; }}
if [ -r /etc/os-release ]; then . /etc/os-release; fi
say id "${{ID:-}}"; say variant "${{VARIANT_ID:-}}"
say boot_id "$(cat /proc/sys/kernel/random/boot_id)"
say hostname "$(cat /proc/sys/kernel/hostname)"
say current_system "$(readlink -e /run/current-system)"
say booted_system "$(readlink -e /run/booted-system)"
kind=system
{part("revisions.sh")}
noted_of "$(readlink -e /run/current-system)"
say noted "$noted"; say version "$(nixos-version --json 2>/dev/null)"
say root "$(findmnt -no SOURCE / 2>/dev/null)"
say mnt "$(findmnt -no SOURCE /mnt 2>/dev/null)"
say macs "$(cat /sys/class/net/*/address 2>/dev/null | tr '\\n' ' ')"
say mark "$(cat {DIRECTORY}/mark 2>/dev/null)"
for done in {DIRECTORY}/*.done; do
  [ ! -r "$done" ] || say "job.$(basename "$done" .done)" "$(cat "$done")"
done
true"""


def parse_machine(lines: Sequence[str]) -> MachineState:
    """The answer to `machine_script`. FleetError when it lacks something."""
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    if missing := [key for key in _KEYS if key not in values]:
        raise FleetError(f"no {', '.join(missing)} in what the machine says of itself")
    jobs = {key.removeprefix("job."): value for key, value in values.items() if key.startswith("job.")}
    return MachineState(
        id=values["id"] or None,
        variant=values["variant"] or None,
        boot_id=values["boot_id"] or None,
        hostname=values["hostname"] or None,
        current_system=values["current_system"] or None,
        booted_system=values["booted_system"] or None,
        revision=of_running(values["current_system"] or None, values["noted"], values["version"]),
        root=values["root"] or None,
        mnt=values["mnt"] or None,
        mark=values["mark"] or None,
        macs=[mac.lower() for mac in values["macs"].split() if mac.strip("0:")],
        jobs=jobs,
    )

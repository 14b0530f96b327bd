"""`nixherd install`: NixOS on any machine that SSH reaches, by deploys/install.py, and how far it was seen to come."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from nixherd.base.errors import Exit, Usage
from nixherd.cli.front import Front, pass_front
from nixherd.cli.host_rows import report_rows, rows_of, run_for
from nixherd.cli.output import can_ask
from nixherd.cli.parameters import Text, data_option, dry_run_option, json_option, yes_option
from nixherd.cli.run_pyinfra import Ended
from nixherd.deploy.installation import Given
from nixherd.fleet.groups import PHASES, phases_of, select

INSTALL = "deploys/install.py"
DESTROYS = "wipe "  # how the step begins whose effect nothing brings back
_PATH = click.Path(resolve_path=True)


def _phases(text: str) -> tuple[str, ...]:
    phases = phases_of(text)
    if phases is None:
        raise ValueError(f"{text} is not some of {','.join(PHASES)}, in this order")
    return phases


def _pairs(name: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The datum that says them by their first words. Usage where one of these is given twice."""
    by_first = dict(pairs)
    if len(by_first) < len(pairs):
        raise Usage(f"{name}: a path is given twice; leave one out")
    return [f"{name}={json.dumps(by_first)}"] if by_first else []


@click.command()
@click.argument("hosts", nargs=-1, required=True, metavar="HOST|GROUP...")
@click.option("--address", metavar="ADDRESS", help="Where it is now, for a machine that no hypervisor knows.")
@click.option("--host-key", metavar="KEY", help="Which host key it shows now, as `ssh-ed25519 AAAA…`.")
@click.option("--user", metavar="USER", help="Who logs in to it now, as root or with sudo.")
@click.option(
    "--extra-files",
    type=_PATH,
    metavar="DIR",
    help="A tree for the new root, with its modes; root's, unless --chown says otherwise.",
)
@click.option(
    "--chown", nargs=2, multiple=True, metavar="PATH UID:GID", help="Whose PATH of that tree is, and all below it."
)
@click.option(
    "--disk-encryption-key",
    nargs=2,
    type=(str, _PATH),
    multiple=True,
    metavar="REMOTE FILE",
    help="FILE's content is at REMOTE in the installer's memory while the disks are made.",
)
@click.option(
    "--hardware",
    type=click.Choice(["generate", "facter"]),
    help="Write hardware-configuration.nix, or nixos-facter's facter.json, into the flake first.",
)
@click.option("--hardware-path", metavar="PATH", help="Where, in the flake; else beside the host's configuration.")
@click.option(
    "--phases",
    type=Text("phases", _phases),
    metavar=",".join(PHASES),
    help="These alone; what comes before the first has to be there.",
)
@click.option("--no-reboot", is_flag=True, help="Leave it in its installer, installed.")
@click.option("--kexec", metavar="FILE|URL", help="The installer's .tar.gz; else the flake's own for its platform.")
@click.option("--kexec-sha256", metavar="HASH", help="Of the file at that URL.")
@yes_option
@dry_run_option
@data_option
@json_option
@pass_front
def install(front: Front, /, hosts: Sequence[str], data: Sequence[str], **given: Any) -> int:
    """Install NixOS on machines that SSH reaches: kexec, disko, nixos-install, reboot, proof.

    THEIR DISKS ARE WIPED; on a terminal it shows the plan and asks. A guest is wiped only where the definitions let it
    be, any other machine only while its publicKey is a placeholder. The same command finishes a run that was killed.
    """
    phases = given["phases"] or PHASES
    phases = tuple(each for each in phases if each != "reboot" or not given["no_reboot"])
    told = [*_data(phases, given), *data]
    _require_hosts(front, hosts, [name for name in ("address", "host_key") if given[name]])
    if not front.dry_run and not front.yes and can_ask():
        ended = run_for(front, [INSTALL], hosts, told, dry=True)
        planned = rows_of(ended, dry=True)
        if not planned or any(row["exit"] for row in planned):
            return _report(front, ended, phases, dry=True)
        ended.report(Exit.DONE, {"fleet": str(front.root), "dry": True, "hosts": planned}, lambda document: None)
        if wiped := [row["host"] for row in planned if any(step.startswith(DESTROYS) for step in row["steps"])]:
            steps = [f"{row['host']}: would {step}" for row in planned for step in row["steps"]]
            front.confirm(f"Wipe {', '.join(wiped)} like that?", "nothing was installed", plan=steps)
    return _report(front, run_for(front, [INSTALL], hosts, told, dry=front.dry_run), phases, dry=front.dry_run)


def _data(phases: Sequence[str], given: Mapping[str, Any]) -> list[str]:
    """What the options say, as host data. Usage where they contradict each other."""
    for phase, names in _OF_PHASE.items():
        for name in names:
            if given[name] and phase not in phases:
                raise Usage(f"--{name.replace('_', '-')} is for the phase {phase}, which is left out; leave out one")
    if not phases:
        raise Usage("--no-reboot leaves no phase; leave it out, or name others with --phases")
    if given["chown"] and not given["extra_files"]:
        raise Usage("--chown says whose files of --extra-files are; name a directory with it")
    if given["hardware_path"] and not given["hardware"]:
        raise Usage("--hardware-path: say what is to be written there, --hardware generate or facter")
    if given["kexec_sha256"] and "://" not in (given["kexec"] or ""):
        raise Usage("--kexec-sha256 is of the file at --kexec URL; a file is taken as it is")
    Given(kexec=given["kexec"], kexec_sha256=given["kexec_sha256"]).image("install", None)
    kexec = given["kexec"]
    if kexec and "://" not in kexec:
        kexec = str(Path(kexec).expanduser().resolve())
    if given["extra_files"] and not Path(given["extra_files"]).is_dir():
        raise Usage(f"--extra-files {given['extra_files']}: no such directory; correct its path")
    for _, file in given["disk_encryption_key"]:
        if not Path(file).exists():
            raise Usage(f"--disk-encryption-key {file}: no such file; correct its path")
    texts = {
        "ssh_hostname": given["address"],
        "host_key": given["host_key"],
        "install_user": given["user"],
        "extra_files": given["extra_files"],
        "kexec": kexec,
        "kexec_sha256": given["kexec_sha256"],
        _HARDWARE.get(given["hardware"]): given["hardware"] and (given["hardware_path"] or True),
        "phases": ",".join(phases) if tuple(phases) != PHASES else None,
    }
    return [
        *(f"{name}={json.dumps(value)}" for name, value in texts.items() if value),
        *_pairs("extra_owners", given["chown"]),
        *_pairs("disk_encryption_keys", given["disk_encryption_key"]),
    ]


_OF_PHASE = {"kexec": ("kexec",), "disko": ("disk_encryption_key",), "install": ("extra_files",)}
_HARDWARE = {"generate": "hardware_configuration", "facter": "hardware_report"}


def _require_hosts(front: Front, hosts: Sequence[str], for_one: Sequence[str]) -> None:
    """Usage unless these are machines, and one alone where options say of one where and who it is."""
    selected = select(front.fleet, hosts)
    if homes := sorted(host for host in selected if not front.fleet.hosts[host].is_nixos):
        raise Usage(f"install: {', '.join(homes)} is a home, which has no disks; name machines")
    if for_one and len(selected) > 1:
        option = f"--{for_one[0].replace('_', '-')}"
        raise Usage(f"{option} is one machine's, and {', '.join(sorted(selected))} are several; name one")


def _report(front: Front, ended: Ended, phases: Sequence[str], *, dry: bool) -> int:
    rows = [_seen(row, ended.entries) for row in rows_of(ended, dry=dry)]
    return report_rows(front, ended, {"deploys": [INSTALL], "phases": [*phases]}, rows, _lines(rows))


def _seen(row: dict[str, Any], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row with what was read back from its machine; one of which nothing was is not known to be installed."""
    of_host = [entry for entry in entries if entry.get("host") == row["host"] and entry["event"] == "found"]
    verified = next((entry["verified"] for entry in of_host if "verified" in entry), None)
    reached = next((entry["reached"] for entry in of_host if "reached" in entry), None)
    row |= {"verified": verified, "reached": reached}
    if row["outcome"] in ("done", "unchanged") and not (verified or reached):
        row |= {"outcome": "unknown", "why": "what runs there was not read back", "exit": int(Exit.UNKNOWN)}
    return row


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        if row["exit"] == Exit.DONE and (seen := row["verified"]):
            yield f"{row['host']}: installed: at {seen['address']} runs {seen['system']}"
        elif row["exit"] == Exit.DONE and row["reached"]:
            yield f"{row['host']}: {row['reached']}"

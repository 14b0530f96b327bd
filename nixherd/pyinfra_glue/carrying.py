"""What an operator gives along with an installation: files for the new root, and keys that disko finds in memory."""

import base64
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath

from pyinfra.api.host import Host

from nixherd.base.errors import EndUnknown, FleetError, Unforeseen
from nixherd.deploy.carried import (
    Entry,
    archive,
    differences,
    in_the_way,
    listed,
    listing_script,
    parse_listing,
)
from nixherd.deploy.copy import copy_towards
from nixherd.deploy.machine import Machine, output_of
from nixherd.pyinfra_glue.installing import machine_for, require_still_installable
from nixherd.ssh.login_shell import Job

ROOT = "/mnt"
CARRY_DEADLINE = 1800.0  # seconds
UNPACK = f"tar -C {ROOT} -xpf - --numeric-owner --same-owner"
_MEMORY = ("tmpfs", "ramfs", "overlayfs", "rootfs")  # what an installer's root is
_SHOWN = 3  # differences in a message


def lacking(host: Host, entries: Sequence[Entry]) -> list[str]:
    """Where the new root does not have these entries as they are given. FleetError where something is in their way."""
    machine = machine_for(host)
    script = listing_script(ROOT)
    there = parse_listing(
        output_of(machine, script, stdin=listed(entries), what="looking at the new root", deadline=CARRY_DEADLINE)
    )
    if obstacles := in_the_way(entries, there):
        raise FleetError(f"{machine.id}: extra_files: {_some(obstacles)} there; correct the tree")
    return differences(entries, there)


def carry(host: Host, entries: Sequence[Entry]) -> None:
    """Unpack the entries in the new root, and read back what is there then. FleetError where that differs."""
    machine = machine_for(host)
    require_still_installable(host, "install")
    copy_towards(machine, lambda to: (to.argv(UNPACK), {}), CARRY_DEADLINE, input=archive(entries))
    if wrong := lacking(host, entries):
        raise FleetError(f"{machine.id}: extra_files are not there as they were sent: {_some(wrong)}; run this again")


def _some(lines: Sequence[str]) -> str:
    more = f", and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return ", ".join(lines[:_SHOWN]) + more


# Keys of encrypted disks


@contextmanager
def keys_in_memory(machine: Machine, keys: Mapping[str, bytes], job: Job) -> Iterator[None]:
    """Have these key files in the installer's memory while the job runs, which removes them at its end.

    They are removed here as well, however it went, unless the job may go on. Nothing is put beside a job that runs
    already: it has its keys.
    """
    try:
        for remote, content in keys.items():
            _put_key(machine, remote, content, job)
        yield
    except EndUnknown:  # the job may go on, and needs them
        raise
    except BaseException:
        try:
            _remove_keys(machine, keys)
        except Unforeseen:
            raise
        except OSError as lost:
            machine.say(f"{', '.join(keys)} may be left in the installer's memory until its reboot: {lost}")
        raise
    _remove_keys(machine, keys)


def _put_key(machine: Machine, remote: str, content: bytes, job: Job) -> None:
    """Write a key file that root alone may read, in a place that is memory; what it holds travels on stdin."""
    file, parent = shlex.quote(remote), shlex.quote(str(PurePosixPath(remote).parent))
    kinds = "|".join(_MEMORY)
    script = (
        f"if systemctl is-active --quiet {job.unit}; then cat >/dev/null; exit 0; fi\n"
        f"umask 077 && {{ [ -d {parent} ] || mkdir -p -m 0700 {parent}; }} || exit 1\n"
        f"case $(stat -f -c %T {parent}) in {kinds}) ;; "
        f"*) echo {parent} is not in memory: no key is written to a disk >&2; exit 1;; esac\n"
        f"base64 -d >{file}.new && chmod 0400 {file}.new && mv -T {file}.new {file}"
    )
    output_of(machine, script, stdin=base64.b64encode(content).decode(), what=f"writing {remote}")


def _remove_keys(machine: Machine, keys: Mapping[str, bytes]) -> None:
    """Remove them, and see that they are gone."""
    if keys:
        files = [shlex.quote(f"{each}{suffix}") for each in keys for suffix in ("", ".new")]
        gone = " && ".join(f"[ ! -e {each} ]" for each in files)
        output_of(machine, f"rm -f -- {' '.join(files)}; {gone}", what="removing the disks' keys")

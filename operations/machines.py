"""Operations on any machine of the fleet that answers: a command of the operator's, and the way there for OpenSSH.

nixherd exec nixos -- systemctl --failed
nixherd ssh dev
nixherd status
"""

import json
from dataclasses import asdict
from pathlib import Path

from pyinfra import host

from nixherd.base.errors import FleetError, Usage
from nixherd.base.files import write_whole
from nixherd.base.names import flag_of
from nixherd.base.terminal import one_line
from nixherd.deploy.command import run_command
from nixherd.deploy.options import LONGEST
from nixherd.deploy.protocol import Kind
from nixherd.overview.machine import ask
from nixherd.pyinfra_glue.engine import PyinfraMachine
from nixherd.pyinfra_glue.hosts import connector_of, context_of, fleet_host
from nixherd.pyinfra_glue.operation import Change, operation
from nixherd.ssh.kept_way import keep


@operation(is_idempotent=False)
def execute(line: str, sudo: bool = False, deadline: int = 120, answers: str | None = None) -> Change:
    """Run a line of the machine's shell there. A status other than 0 fails the host.

    Args:
        line: as `/bin/sh -c` takes it.
        sudo: as root.
        deadline: seconds that it may take.
        answers: a directory, in which HOST.json is to have its `status`, `stdout` and `stderr`; by default they are
            narrated.
    """
    if not isinstance(line, str) or not line.strip() or "\0" in line:
        raise Usage(f"line={line!r} is not a line of a shell")
    if not isinstance(deadline, int) or not 1 <= deadline <= LONGEST:
        raise Usage(f"deadline={deadline} is not a whole number of seconds from 1 to {LONGEST}")
    machine, by_root = PyinfraMachine(host), flag_of("sudo", sudo)

    def make() -> None:
        done = run_command(machine, line, sudo=by_root, deadline=float(deadline))
        if answers:
            write_whole(Path(answers) / f"{machine.id}.json", json.dumps(asdict(done)))
        else:
            for text in (done.stdout, done.stderr):
                if text:
                    machine.say(text)
        if done.status:
            raise FleetError(f"{machine.id}: the command ended with status {done.status}")

    return Change(f"run {one_line(line)}", make)


@operation(is_idempotent=False)
def look(answers: str, secrets: str | None = None) -> Change:
    """Ask the machine what it is like, in one command that changes nothing there.

    Args:
        answers: a directory, in which HOST.json is to have what it said, with the `address` and the host `key`.
        secrets: a file with the paths of secrets to look for, by host, as JSON.
    """
    machine = PyinfraMachine(host)
    kind = Kind.SYSTEM if fleet_host(host).is_nixos else Kind.HOME

    def make() -> None:
        place = connector_of(host).place
        paths = json.loads(Path(secrets).read_text(encoding="utf-8")).get(machine.id, ()) if secrets else ()
        answer: dict[str, object] = {"seen": ask(machine, kind, paths).to_json()}
        answer |= {"address": place.address, "key": place.host_key or None} if place else {}
        write_whole(Path(answers) / f"{machine.id}.json", json.dumps(answer))

    return Change("ask what it is like", make, changes=False, claims=False)


@operation(is_idempotent=False)
def way(directory: str) -> Change:
    """Write down how OpenSSH comes to the machine where it answers now: an ssh_config and the pinned keys.

    Args:
        directory: in which HOST/config and HOST/known_hosts are written; made, for the operator alone.
    """
    machine, journal = PyinfraMachine(host), context_of(host).run.journal

    def make() -> None:
        kept = keep(machine.copy_to(), Path(directory) / machine.id)
        journal.note("found", machine.id, target=kept.target, address=kept.address, config=str(kept.config))

    return Change(f"write down the way to {machine.id}", make, changes=False)

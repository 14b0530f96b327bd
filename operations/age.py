"""A machine's age identity, for what decrypts without sops-nix's own conversion."""

import shlex
from functools import partial
from pathlib import PurePosixPath

from pyinfra import host

from nixherd.base.errors import FleetError, Usage
from nixherd.base.ssh_keys import HOST_KEY
from nixherd.deploy.machine import output_of
from nixherd.facts.age import Recipient
from nixherd.pyinfra_glue.engine import PyinfraMachine
from nixherd.pyinfra_glue.hosts import connector_of, executing, fleet_host
from nixherd.pyinfra_glue.operation import Change, NoChange, operation


@operation()
def identity(path: str, source: str = HOST_KEY) -> Change | NoChange:
    """Keep the age identity of an SSH private key on the machine in a file, mode 0600; the key never leaves it.

    Needs `ssh-to-age` there (`environment.systemPackages`), and root.
    """
    for word in (path, source):
        if not isinstance(word, str) or not PurePosixPath(word).is_absolute():
            raise Usage(f"{word!r} is not an absolute path on the machine")
    host_id, machine = fleet_host(host).id, PyinfraMachine(host)
    if executing(host):
        connector_of(host).reach()
    target, key = shlex.quote(path), shlex.quote(source)
    recipient = host.get_fact(Recipient, path=f"{source}.pub")
    if executing(host) and recipient is None:
        raise FleetError(f"{host_id}: {source}.pub does not exist; name the SSH key to convert")
    same = (
        f'[ -s {target} ] && [ "$(stat -c %a {target})" = 600 ] && ssh-to-age -private-key -i {key} | cmp -s - {target}'
    )
    if recipient is not None and machine.look(lambda: machine.run(same, sudo=True)).status == 0:
        return NoChange(f"{path} is the identity of {recipient}")
    script = (
        f"command -v ssh-to-age >/dev/null || {{ echo 'ssh-to-age is not installed' >&2; exit 1; }}; "
        f"umask 077 && mkdir -p {shlex.quote(str(PurePosixPath(path).parent))} && "
        f"ssh-to-age -private-key -i {key} >{target}.new && mv {target}.new {target}"
    )
    write = partial(output_of, machine, script, what="ssh-to-age", sudo=True)
    return Change(f"write the age identity of {source} to {path}", write)

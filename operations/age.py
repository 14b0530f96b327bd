"""A machine's age identity, for what decrypts without sops-nix's own conversion."""

import shlex
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import operation

from facts.age import HOST_KEY_FILE, Recipient
from nixherd.errors import FleetError, Usage
from operations.steps import Commands, connector_of, decide, do, executing, fleet_host, shell

_PRIVATE = HOST_KEY_FILE.removesuffix(".pub")


@operation()
def identity(path: str, source: str = _PRIVATE) -> Commands:
    """Keep the age identity of an SSH private key on the machine in a file, mode 0600; the key never leaves it.

    Needs `ssh-to-age` there (`environment.systemPackages`), and root.
    """
    yield from decide(host, lambda: _identity(path, source))


def _identity(path: str, source: str) -> Commands:
    for word in (path, source):
        if not isinstance(word, str) or not PurePosixPath(word).is_absolute():
            raise Usage(f"{word!r} is no absolute path on the machine")
    host_id = fleet_host(host).id
    if executing(host):
        connector_of(host).reach()
    target, key = shlex.quote(path), shlex.quote(source)
    recipient = host.get_fact(Recipient, path=f"{source}.pub")
    if executing(host) and recipient is None:
        raise FleetError(f"{host_id}: there is no {source}.pub; name the SSH key to convert")
    same = (
        f'[ -s {target} ] && [ "$(stat -c %a {target})" = 600 ] && ssh-to-age -private-key -i {key} | cmp -s - {target}'
    )
    if recipient is not None and host.run_shell_command(same, _sudo=True)[0]:
        host.noop(f"{path} is the identity of {recipient}")
        return

    def act() -> None:
        script = (
            f"command -v ssh-to-age >/dev/null || {{ echo 'ssh-to-age is not installed' >&2; exit 1; }}; "
            f"umask 077 && mkdir -p {shlex.quote(str(PurePosixPath(path).parent))} && "
            f"ssh-to-age -private-key -i {key} >{target}.new && mv {target}.new {target}"
        )
        shell(host, script, what="ssh-to-age", sudo=True)

    yield from do(host, f"write the age identity of {source} to {path}", act)

"""Facts of a machine's age key, which is made of its SSH host key."""

import shlex

from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from nixherd.base.ssh_keys import HOST_KEY_FILE, parse_public_key
from nixherd.facts.base import Fact
from nixherd.ssh.age import is_recipient, recipient_of


class HostKey(Fact[str | None]):
    """
    Returns the machine's Ed25519 host key as its file says it, None where there is none:

    .. code:: python

        "ssh-ed25519 AAAAC3Nza… root@dev"
    """

    @override
    def command(self, path: str = HOST_KEY_FILE) -> str:
        quoted = shlex.quote(path)
        return f"if [ -e {quoted} ]; then cat -- {quoted}; fi"

    @override
    def process(self, output: list[str]) -> str:
        try:
            return str(parse_public_key("\n".join(output)))
        except ValueError as error:
            raise FactProcessError(f"the host key's file holds no public key: {error}") from error


class Recipient(Fact[str | None]):
    """
    Returns the age recipient of an SSH public key on the machine, by its `ssh-to-age` where it has one:

    .. code:: python

        "age1grhm656gmlh4lzxvt6ffav27rks7zuzq52shtnce5k575tdpapmq02hmng"

    None where the file is missing.
    """

    @override
    def command(self, path: str = HOST_KEY_FILE) -> str:
        quoted = shlex.quote(path)
        convert = f"if command -v ssh-to-age >/dev/null; then ssh-to-age -i {quoted}; else cat -- {quoted}; fi"
        return f"if [ -e {quoted} ]; then {convert}; fi"

    @override
    def process(self, output: list[str]) -> str:
        text = "\n".join(output).strip()
        if is_recipient(text):
            return text
        try:
            return recipient_of(text)
        except ValueError as error:
            raise FactProcessError(f"its host key can be no age recipient: {error}") from error

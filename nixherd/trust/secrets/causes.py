"""Why a machine has not decrypted its secrets, as it tells: its keys, and what sops-install-secrets complained of.

It is only asked where something is missing, for the public halves of its keys alone. Pure.
"""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from nixherd.base.errors import FleetError
from nixherd.base.ssh_keys import parse_public_key
from nixherd.base.terminal import visible
from nixherd.nix.declared import Identity
from nixherd.ssh.age import recipient_of
from nixherd.trust.secrets.keys import Recipient, age
from nixherd.trust.secrets.proof import values_between

PROGRAM = "sops-install-secrets"
_BEGIN, _END = "nixherd-causes", "nixherd-causes-end"
_STORE = re.compile(r"/nix/store/[a-z0-9]{32}-(?:source/)?")
_PREFIX = re.compile(rf"^.*?(?=\b{PROGRAM}: |\bCannot (?:read|convert) )")
# The journal's lines of the units that run it at a boot or by themselves, by their fields, which are indexed; and where
# the log of a boot is in a container. What it says at a switch is the deployment's.
_UNITS = (f"{PROGRAM}.service", f"{PROGRAM}-for-users.service", "initrd-nixos-activation.service")
_JOURNAL = " + ".join([*(f"_SYSTEMD_UNIT={unit}" for unit in _UNITS), "_TRANSPORT=kernel"])
_COMPLAINTS = f"grep -E '{PROGRAM}: |Cannot (read|convert) ssh key' | grep -v ': Imported ' | tail -n 3"
_FUNCTIONS = f"""
LC_ALL=C SSH_ASKPASS_REQUIRE=never; export LC_ALL SSH_ASKPASS_REQUIRE
say() {{ printf '%s=%s\\n' "$1" "$2"; }}
key() {{
  if text=$("$2" -y $3 "$4" </dev/null 2>&1); then say "$1" "$(printf %s "$text" | tr '\\n' ' ')"; return; fi
  comment=$(sed -n 's/^# public key: //p' "$4" 2>/dev/null | tr '\\n' ' ')
  if [ -n "$comment" ]; then say "$1" "$comment"; else say "$1.why" "$(printf %s "$text" | tail -n 1)"; fi
}}
complaints() {{ n=0; while IFS= read -r line; do n=$((n + 1)); say "$1.$n" "$line"; done; }}
echo {_BEGIN}
"""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the machine, at `path`; `recipients` are of those that it can be, none where `why` says so."""

    path: str
    recipients: tuple[Recipient, ...] = ()
    line: str = ""
    """the public half of an SSH key"""
    why: str = ""

    @property
    def is_absent(self) -> bool:
        return "No such file or directory" in self.why


@dataclass(frozen=True)
class Causes:
    """What the machine says of one user's secrets, or the system's.

    `has_unit`: whether a unit installs them, and not the activation. `has_gnupg`: it may decrypt with GnuPG's keys,
    which are not looked at.
    """

    keys: tuple[Key, ...] = ()
    complaints: tuple[str, ...] = ()
    has_unit: bool = False
    has_gnupg: bool = False

    @property
    def recipients(self) -> frozenset[Recipient] | None:
        """All age recipients that it can decrypt for; None where that is not known."""
        if any(key.why and not key.is_absent for key in self.keys):
            return None
        return frozenset(recipient for key in self.keys for recipient in key.recipients)


def script(identity: Identity) -> str:
    """Print the public halves of the keys, and the last complaints."""
    lines = [_FUNCTIONS]
    for number, path in enumerate(identity.age_ssh_keys):
        lines.append(f"key ssh.{number} ssh-keygen -f {shlex.quote(path)}")
    if identity.age_key_file:
        lines.append(f"key age age-keygen '' {shlex.quote(identity.age_key_file)}")
    if identity.user is None:
        lines.append(f"if systemctl cat {PROGRAM}.service >/dev/null 2>&1; then say unit yes; fi")
        journal = f"{{ journalctl -b -q -o cat --no-pager {_JOURNAL}; cat /run/log/stage-2-init.log; }} 2>/dev/null"
    else:
        uid = f'"_UID=$(id -u -- {shlex.quote(identity.user)})"'
        journal = f"journalctl -b -q -o cat --no-pager _SYSTEMD_USER_UNIT=sops-nix.service {uid} 2>/dev/null"
    return "\n".join([*lines, f"{journal} | {_COMPLAINTS} | complaints line", f"echo {_END}", ""])


def parse(lines: Iterable[str], identity: Identity) -> Causes:
    """The answer to `script`. FleetError where it is cut off."""
    values = values_between(lines, _BEGIN, _END)
    keys = [
        _key(path, values.get(f"ssh.{number}", ""), values.get(f"ssh.{number}.why", "it does not say"))
        for number, path in enumerate(identity.age_ssh_keys)
    ]
    if identity.age_key_file:
        keys.append(_key(identity.age_key_file, values.get("age", ""), values.get("age.why", "it does not say")))
    complaints = tuple(_shortened(values[name]) for name in sorted(values) if name.startswith("line."))
    has_gnupg = bool(identity.gnupg_home or identity.gnupg_ssh_keys)
    return Causes(tuple(keys), complaints, "unit" in values, has_gnupg)


def _key(path: str, text: str, why: str) -> Key:
    words = text.split()
    if not words:
        return Key(path, why=visible(why))
    if words[0].startswith("age1"):
        return Key(path, tuple(age(word) for word in words))
    try:
        line = parse_public_key(text.strip()).bare
        return Key(path, (age(recipient_of(line)),), line)
    except (ValueError, FleetError) as error:
        return Key(path, why=f"it cannot be an age key: {error}")


def _shortened(line: str) -> str:
    """A line without the clock, the process and the store's hashes."""
    return visible(_STORE.sub("", _PREFIX.sub("", _STORE.sub("", line).replace("bin/", "")))).strip()

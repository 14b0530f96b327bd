"""`nixherd secrets init`: who is to decrypt what a fleet begins with, and which files they cannot."""

import getpass
from collections.abc import Sequence

from nixherd.base.errors import FleetError, Usage
from nixherd.base.run import Run
from nixherd.trust.secrets.identities import Opens, Operator
from nixherd.trust.secrets.keys import Kind, Recipient, age_keys, guess
from nixherd.trust.secrets.sops import operator
from nixherd.trust.secrets.store import Secrets
from nixherd.trust.starting import require_name

_NOBODY = "nobody is there to encrypt for"
_REMEDY = "make an age identity with age-keygen, or name somebody: --person NAME=KEY"


def people_of(who: Operator, name: str | None, persons: Sequence[str]) -> dict[str, Recipient]:
    """By name, the keys of the operator and of those who are given as NAME=KEY. Usage where that is nobody."""
    found: dict[str, Recipient] = {}
    mine = sorted({key for each in who.identities for key in each.recipients if key.is_x25519}, key=str)
    given = {str(guess(text.partition("=")[2]).value) for text in persons}
    for number, key in enumerate(key for key in mine if key.value not in given):
        base = require_name(name or getpass.getuser())
        found[f"{base}-{number + 1}" if number else base] = key
    for text in persons:
        person, _, key_text = text.partition("=")
        key = _key(text, key_text)
        if person in found:
            raise Usage(f"--person {person}: is a name twice; name yourself otherwise with --name")
        found[require_name(person)] = key
    if not found:
        raise Usage(f"{_NOBODY}: {who.problem or 'no identity says whose it is'}; {_REMEDY}")
    return found


def _key(text: str, key_text: str) -> Recipient:
    key = guess(key_text)
    try:
        if key.kind is Kind.AGE:
            found = age_keys(key_text)
            if len(found) != 1:
                raise ValueError("that is not one key")
            [key] = found
    except ValueError as error:
        raise Usage(f"--person {text}: {error}; write NAME=KEY") from None
    if key.kind not in (Kind.AGE, Kind.PGP):
        raise Usage(f"--person {text}: {key.kind} keys are written into .sops.yaml by hand, once it is there")
    return key


def unreadable(run: Run, who: Operator, identity: str | None, secrets: Secrets) -> tuple[str, ...]:
    """The files that the operator cannot decrypt. FleetError where that is not known."""
    found = []
    for path, file in secrets.files.items():
        if file.encrypted is None:
            continue
        opens = who.reads(file.encrypted)
        if opens is Opens.UNKNOWN:
            try:
                sops, store = operator(run, identity).sops(file.encrypted.recipients), secrets.require_store(path)
                sops.decrypt(secrets.root, secrets.root / store.config, [path])
            except FleetError as error:
                raise FleetError(
                    f"{path}: whether you can decrypt it is not known ({error}); move it away, or have its keys here"
                ) from None
        elif opens is Opens.NO:
            found.append(path)
    return tuple(found)

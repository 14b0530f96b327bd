"""`nixherd secrets init`: who is to decrypt what a fleet begins with."""

import getpass
from collections.abc import Sequence

from nixherd.base.errors import Usage
from nixherd.trust.secrets.identities import Operator
from nixherd.trust.secrets.keys import Kind, Recipient, age_keys, guess
from nixherd.trust.starting import require_name

_NOBODY = "nobody is there to encrypt for"
_REMEDY = "make an age identity with age-keygen, or name somebody: --person NAME=KEY"


def people_of(who: Operator, name: str | None, persons: Sequence[str]) -> dict[str, Recipient]:
    """By name, the keys of the operator and of those who are given as NAME=KEY. Usage where that is nobody."""
    found: dict[str, Recipient] = {}
    mine = sorted({key for each in who.identities for key in each.recipients if key.is_x25519}, key=str)
    given = {str(guess(text.partition("=")[2]).value) for text in persons}
    base = require_name(getpass.getuser() if name is None else name)
    for number, key in enumerate(key for key in mine if key.value not in given):
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
            keys = age_keys(key_text)
            if len(keys) != 1:
                raise ValueError("it has several keys, and a person has one" if keys else "the key is missing")
            key = keys[0]
    except ValueError as error:
        raise Usage(f"--person {text}: {error}; write NAME=KEY") from None
    if key.kind not in (Kind.AGE, Kind.PGP):
        raise Usage(f"--person {text}: {key.kind} keys are written into .sops.yaml by hand, once it is there")
    return key

"""Whoever encrypts files anew can still decrypt them afterwards, or has said that they give them up."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.identities import Opens, Operator
from nixherd.trust.secrets.plan import Rekey
from nixherd.trust.secrets.sops import NO_RECIPIENT, Sops

_SHOWN = 5  # files that a refusal names


def require_kept(who: Operator, before: Mapping[str, Encrypted], rekeys: Collection[Rekey]) -> set[str]:
    """Return the files of which only a trial tells; FleetError where it is certain that somebody locks themselves out.

    `before` is what each file is now, by its path.
    """
    found = {rekey.path: who.keeps(before[rekey.path], rekey.groups, rekey.threshold) for rekey in rekeys}
    if lost := [path for path, each in found.items() if each is Opens.NO]:
        raise _locked_out(lost)
    return {path for path, each in found.items() if each is Opens.UNKNOWN}


def require_possible(
    who: Operator, before: Mapping[str, Encrypted], rekeys: Collection[Rekey], *, give_up: bool
) -> None:
    """FleetError where it is certain that somebody cannot decrypt a file, which is needed to encrypt it anew.

    Also where they could not afterwards, unless they `give_up` that.
    """
    if closed := sorted(rekey.path for rekey in rekeys if who.reads(before[rekey.path]) is Opens.NO):
        raise FleetError(f"{closed[0]}: {NO_RECIPIENT}")
    if not give_up:
        require_kept(who, before, rekeys)


def refusal(identity: str | None, before: Mapping[str, Encrypted], rekeys: Collection[Rekey]) -> FleetError | None:
    """Return why whoever has this identity would lock themselves out with these, as far as that is certain."""
    try:
        require_kept(Operator.of(identity), before, rekeys)
    except FleetError as error:
        return error
    return None


def prove_kept(sops: Sops, directory: Path, config: Path, files: Sequence[str]) -> None:
    """FleetError where the files, as they are to be, cannot be decrypted."""
    for file in files:
        try:
            sops.decrypt(directory, config, [file])
        except FleetError as error:
            raise _locked_out([file]) from error


def _locked_out(files: Iterable[str]) -> FleetError:
    paths = sorted(files)
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    shown = f"{', '.join(paths[:_SHOWN])}{more}"
    remedy = "keep one of your keys in their rules, or say --give-up (data: give_up)"
    return FleetError(f"{shown}: you could no longer decrypt what you can decrypt now; nothing was changed; {remedy}")

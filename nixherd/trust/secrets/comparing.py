"""A file's recipients compared with its rule's, as sops does it: by key group, by kind, with the threshold. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.keys import Group, Recipient
from nixherd.trust.secrets.people import People
from nixherd.trust.secrets.rules import Rule


@dataclass(frozen=True, slots=True)
class Rekey:
    """A file whose recipients are not those that its rule names, in `config`. Shown as it is done.

    `groups` and `threshold` are the rule's. Nobody is `added` or `removed` where a key is only written otherwise.
    """

    path: str
    config: str
    added: tuple[Recipient, ...]
    removed: tuple[Recipient, ...]
    groups: tuple[Group, ...]
    threshold: int
    names: tuple[str, ...]
    """`+dev`, `-old`, what else differs, in that order"""

    def __str__(self) -> str:
        return f"{self.path}: {', '.join(self.names)}"

    @property
    def recipients(self) -> frozenset[Recipient]:
        """Everybody in any group."""
        return frozenset(key for group in self.groups for key in group)

    def is_done(self, file: Encrypted | None) -> bool:
        """Whether the file is as it is to be."""
        return file is not None and _same(file, self.groups, self.threshold)


def compare(path: str, config: str, file: Encrypted, rule: Rule, people: People) -> Rekey | None:
    """What differs, if anything does."""
    if _same(file, rule.groups, rule.threshold):
        return None
    present, intended = set(file.recipients), set(rule.recipients)
    new = {key.bare: key for key in rule.recipients if key not in present}
    gone = {key.bare: key for key in file.recipients if key not in intended}
    added = tuple(key for bare, key in new.items() if bare not in gone)
    removed = tuple(key for bare, key in gone.items() if bare not in new)
    names = [*(f"+{people.name(key)}" for key in added), *(f"-{people.name(key)}" for key in removed)]
    names += [f"{people.name(key)} is written otherwise" for bare, key in new.items() if bare in gone]
    if len(file.groups) > 1 or len(rule.groups) > 1:
        names += _otherwise(file, rule, people)
    return Rekey(path, config, added, removed, rule.groups, rule.threshold, tuple(names))


def _same(file: Encrypted, groups: Sequence[Group], threshold: int) -> bool:
    return file.groups_are(groups) and file.threshold == threshold


def _otherwise(file: Encrypted, rule: Rule, people: People) -> Iterator[str]:
    """What differs of the key groups, beside who is in any."""
    common = {key.bare for key in file.recipients} & {key.bare for key in rule.recipients}
    shown = [_shown(groups, common, people) for groups in (file.groups, rule.groups)]
    if shown[0] != shown[1]:
        yield f"key groups {shown[0]} → {shown[1]}"
    counts = [f"{threshold} of {len(groups)}" for threshold, groups in _counted(file, rule)]
    if counts[0] != counts[1]:
        yield f"takes {counts[0]} → {counts[1]} key groups"


def _counted(file: Encrypted, rule: Rule) -> tuple[tuple[int, Sequence[Group]], tuple[int, Sequence[Group]]]:
    return (file.threshold, file.groups), (rule.threshold, rule.groups)


def _shown(groups: Sequence[Group], common: set[Recipient], people: People) -> str:
    """Who is in which group, of those who are in the file and in the rule: `alice, bob | carol`."""
    inside = (sorted(people.name(key) for key in group if key.bare in common) for group in groups)
    return " | ".join(", ".join(names) or "–" for names in inside)

"""Which inputs move together: a group is taken, or left behind, as one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nixherd.errors import Usage
from nixherd.gate.lock.lockfile import Lock

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Group:
    """Inputs by their names in flake.nix."""

    name: str
    inputs: tuple[str, ...]

    def __str__(self) -> str:
        return self.name if self.inputs == (self.name,) else f"{self.name} ({', '.join(self.inputs)})"


def groups_of(lock: Lock, said: Sequence[str], only: Sequence[str] = ()) -> list[Group]:
    """The groups that were said, as `NAME=INPUT,INPUT…`, and each other input by itself.

    `only`: inputs or groups that are to move at all. First come inputs that others follow (nixpkgs): what builds on
    them is tried with them. Usage for what cannot be meant.
    """
    named: dict[str, tuple[str, ...]] = {}
    taken: dict[str, str] = {}
    for each in said:
        name, equals, rest = each.partition("=")
        inputs = tuple(word.strip() for word in rest.split(",") if word.strip())
        if not equals or not _NAME.fullmatch(name) or not inputs:
            raise Usage(f"--group {each}: write NAME=INPUT,INPUT")
        if name in named or (name in lock.inputs and name not in inputs):
            raise Usage(f"--group {each}: {name} is another group, or an input, already; give it another name")
        for input in inputs:
            _require_known(lock, input, f"--group {each}")
            if input in taken:
                raise Usage(f"--group {each}: {input} is in the group {taken[input]} already")
            taken[input] = name
        named[name] = inputs
    found = [Group(name, inputs) for name, inputs in named.items()]
    found += [Group(input, (input,)) for input in lock.inputs if input not in taken]
    for name in only:
        if name not in named:
            _require_known(lock, name, "lock update")
            if name in taken:
                raise Usage(f"{name} moves with the group {taken[name]}; name that one")
    chosen = [group for group in found if not only or group.name in only]
    return sorted(chosen, key=lambda group: (-sum(lock.followers(each) for each in group.inputs), group.name))


def _require_known(lock: Lock, input: str, where: str) -> None:
    if input not in lock.inputs:
        known = ", ".join(sorted(lock.inputs)) or "none"
        raise Usage(f"{where}: flake.nix locks no input {input!r}; there is {known}")

"""Values as `nix eval` gave them, on their way to being checked: paths, and attribute sets that report findings."""

from dataclasses import dataclass, field
from typing import Any

from nixherd.base.errors import Finding, Severity

_SHOWN = 60


class NixPath(str):
    """A path value of Nix, absolute, and whether anything was there when it was evaluated."""

    exists: bool

    def __new__(cls, value: str, *, exists: bool = True) -> "NixPath":
        path = super().__new__(cls, value)
        path.exists = exists
        return path


class NixOther(str):
    """What JSON has no word for, as a word for it: `<function>`, `<derivation>`."""


@dataclass(frozen=True, slots=True, eq=False)
class NixSet:
    """One attribute set under check: its file and attribute path, and where its findings go."""

    file: str
    name: str
    attribute: str
    values: Any
    findings: list[Finding] = field(repr=False)

    def path(self, name: str) -> str:
        step = f'"{name}"' if "." in name and name.isprintable() else shown_name(name)
        return f"{self.attribute}.{step}" if self.attribute else step

    def child(self, name: str) -> "NixSet":
        """What stands under `name`; its values are None if nothing does."""
        return NixSet(self.file, name, self.path(name), self.get(name), self.findings)

    def report(self, name: str, what: str, remedy: str, *, at: str = "", severity: Severity = Severity.ERROR) -> None:
        """A finding on the attribute `name`, at a place below it; on the set itself without a name."""
        where = f"{self.path(name) if name else self.attribute}{at}"
        self.findings.append(Finding(severity, self.file, where, what, remedy))

    def get(self, name: str) -> Any:
        return self.values.get(name) if isinstance(self.values, dict) else None

    def is_set(self) -> bool:
        """A finding if it is anything else."""
        if not isinstance(self.values, dict):
            self.report("", f"is {nix_type(self.values)}", "it must be an attribute set")
        return isinstance(self.values, dict)

    def entries(self) -> "dict[str, NixSet]":
        """The attribute sets in this one, by name; anything else in it is a finding."""
        entries = (self.child(name) for name in self.values) if self.is_set() else ()
        return {entry.name: entry for entry in entries if entry.is_set()}

    def section(self, name: str) -> "dict[str, NixSet]":
        """The entries of the attribute set `name`, which may be absent."""
        section = self.child(name)
        return {} if section.values is None else section.entries()


def nix_type(value: object) -> str:
    """What Nix people call the type of a value."""
    if isinstance(value, NixPath):
        return "a path"
    if isinstance(value, NixOther):
        return f"a {value.strip('<>')}"
    words = {str: "a string", bool: "a boolean", int: "an integer", float: "a float", list: "a list"}
    return words.get(type(value), "null" if value is None else "an attribute set")


def shown(value: str) -> str:
    """The string in quotes and on one line, cut where it gets long."""
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")


def shown_name(name: str) -> str:
    """An attribute's name, in quotes where it would not be seen as it is."""
    return name if name.isprintable() else shown(name)

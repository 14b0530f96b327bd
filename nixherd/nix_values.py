"""Values as `nix eval` gave them, on their way to being checked: paths, and attribute sets that report findings."""

import re
from dataclasses import dataclass, field
from typing import Any

_SHOWN = 60


class NixPath(str):
    """A path value of Nix, absolute, and whether anything was there when it was evaluated."""

    exists: bool

    def __new__(cls, value: str, *, exists: bool = True) -> "NixPath":
        path = super().__new__(cls, value)
        path.exists = exists
        return path


@dataclass(frozen=True, slots=True, eq=False)
class NixSet:
    """One attribute set under check: its file and attribute path, and where its findings go."""

    file: str
    name: str
    attribute: str
    values: Any
    findings: list[str] = field(repr=False)

    def path(self, name: str) -> str:
        shown_name = name if name.isprintable() else shown(name)
        return f"{self.attribute}.{shown_name}" if self.attribute else shown_name

    def child(self, name: str) -> "NixSet":
        """What stands under `name`; its values are None if nothing does."""
        return NixSet(self.file, name, self.path(name), self.get(name), self.findings)

    def report(self, name: str, what: str, remedy: str) -> None:
        where = self.path(name) if name else self.attribute
        self.findings.append(f"{self.file}: {where}: {what}; {remedy}" if where else f"{self.file}: {what}; {remedy}")

    def get(self, name: str) -> Any:
        return self.values.get(name) if isinstance(self.values, dict) else None

    def entries(self) -> "dict[str, NixSet]":
        """The attribute sets in this one, by name; anything else in it is a finding."""
        if not isinstance(self.values, dict):
            self.report("", f"is {nix_type(self.values)}", "it must be an attribute set")
            return {}
        found = {}
        for name, value in self.values.items():
            entry = self.child(name)
            if isinstance(value, dict):
                found[name] = entry
            else:
                entry.report("", f"is {nix_type(value)}", "it must be an attribute set")
        return found

    def section(self, name: str) -> "dict[str, NixSet]":
        """The entries of the attribute set `name`, which may be absent."""
        section = self.child(name)
        return {} if section.values is None else section.entries()

    def require(self, name: str, remedy: str) -> bool:
        """Whether the attribute is there, which it must be."""
        if self.get(name) is None:
            self.report(name, "missing", remedy)
        return self.get(name) is not None

    def is_text(self, name: str, pattern: re.Pattern[str], kind: str, remedy: str) -> bool:
        """Whether the attribute is there and a string of this pattern; a finding if it is something else."""
        value = self.get(name)
        if value is None:
            return False
        if not isinstance(value, str) or isinstance(value, NixPath):
            self.report(name, f"is {nix_type(value)}, not a string", remedy)
        elif not pattern.fullmatch(value):
            self.report(name, f"{shown(value)} is no {kind}", remedy)
        else:
            return True
        return False

    def is_integer(self, name: str, least: int, remedy: str) -> bool:
        value = self.get(name)
        if value is None:
            return False
        if isinstance(value, bool) or not isinstance(value, int):
            self.report(name, f"is {nix_type(value)}, not an integer", remedy)
        elif value < least:
            self.report(name, f"{value} is less than {least}", remedy)
        else:
            return True
        return False

    def is_boolean(self, name: str, remedy: str) -> None:
        if isinstance(self.values, dict) and name in self.values and not isinstance(self.values[name], bool):
            self.report(name, f"is {nix_type(self.values[name])}, not a boolean", remedy)

    def is_existing_path(self, name: str) -> None:
        value = self.get(name)
        if isinstance(value, NixPath):
            if not value.exists:
                self.report(name, f"{value} does not exist", "create the file or correct the path")
        elif value is not None:
            remedy = "write a path without quotes, such as ./hosts/NAME/home.nix"
            self.report(name, f"is {nix_type(value)}, not a path", remedy)


def nix_type(value: object) -> str:
    """What Nix people call the type of a value."""
    if isinstance(value, NixPath):
        return "a path"
    words = {str: "a string", bool: "a boolean", int: "an integer", float: "a float", list: "a list"}
    return words.get(type(value), "null" if value is None else "an attribute set")


def shown(value: str) -> str:
    """The string in quotes and on one line, cut where it gets long."""
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")

"""What pyinfra's group data and `--data NAME=VALUE` may say: the names that our code reads, and their values.

How a host is deployed to is judged by `nixherd.deploy.options`; the rest is judged here. Names beginning with `_` or
`ssh_` are pyinfra's. What is said for all hosts can be read before pyinfra has an inventory.
"""

import difflib
import runpy
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nixherd.base.errors import Usage
from nixherd.fleet.near_names import near_option
from nixherd.fleet.schema import FIELDS, OPERATORS, Place


def said_for_all(name: str, directories: Iterable[Path]) -> Iterator[Any]:
    """What `all.py` in each of the directories says, in their order; nothing where it says nothing."""
    for values in _said(directories):
        if values.get(name) is not None:
            yield values[name]


def for_all(directories: Iterable[Path]) -> dict[str, Any]:
    """What pyinfra takes from there for every host: later directories come first in rank."""
    return {name: value for values in _said(directories) for name, value in values.items() if not name.startswith("_")}


def names_in(file: Path) -> list[str]:
    """The names that a file of group data sets."""
    return [name for name in runpy.run_path(str(file)) if not name.startswith("_")]


def _said(directories: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for directory in directories:
        if (directory / "all.py").is_file():
            yield runpy.run_path(str(directory / "all.py"))


_LONGEST = 24 * 3600  # seconds


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LONGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).isprintable() and value != ""


Kind = tuple[Callable[[Any], bool], str]
_FLAG: Kind = (lambda value: value in (True, False, 0, 1), "true or false")
_SECONDS: Kind = (_is_seconds, f"a whole number of seconds from 1 to {_LONGEST}")
_TEXT: Kind = (_is_text, "one line of text")
_ANY: Kind = (lambda _: True, "")

DEPLOYMENT = (*(field.name for field in FIELDS[Place.HOST] if field.deploys), *OPERATORS)

# By name, what each has to be; whoever asks for one of the last kind judges it.
HOSTS: Mapping[str, Kind] = {
    **dict.fromkeys(DEPLOYMENT, _ANY),
    **dict.fromkeys(("allow_reboot", "commit", "force", "local", "protect", "rotate_removed"), _FLAG),
    **dict.fromkeys(("boot_deadline", "task_deadline"), _SECONDS),
    **dict.fromkeys(("age_identity", "commit_message", "docs_file", "docs_template", "flake", "host_key"), _TEXT),
    **dict.fromkeys(("hardware_configuration", "install_user", "journal", "proxmox_token_file"), _TEXT),
    "secrets_directory": _TEXT,
    "snapshot": (lambda value: value in ("keep", "remove"), "keep or remove"),
    "sudo_password": (lambda value: value == "stdin", "stdin: the password itself is never said here"),
    **dict.fromkeys(("extra_files", "secrets_rules", "without"), _ANY),
}
NODES: Mapping[str, Kind] = {
    **dict.fromkeys(("blacklist", "devices", "hostpci", "kernel_words", "vendor_reset"), _ANY),
    **dict.fromkeys(("host_key", "proxmox_token_file"), _TEXT),
}


def check_data(data: Mapping[str, Any], known: Mapping[str, Kind], *, others: bool = False) -> None:
    """Usage for a datum that nobody asks for or that cannot be meant; `others` allows names that are near no known one.

    What it was to say would not be done, and nothing else would tell.
    """
    for name, value in data.items():
        if name in known:
            is_right, expected = known[name]
            if not is_right(value):
                raise Usage(f"--data {name}={value} is not {expected}")
        elif not name.startswith(("_", "ssh_")):
            _refuse_unknown(f"--data {name}", name, known, others=others)


def check_group_data(names: Iterable[str], where: str) -> None:
    """Usage for a name in group data near one that is asked for; other names may be for deploy files of one's own."""
    for name in names:
        if name not in {**HOSTS, **NODES}:
            _refuse_unknown(f"{where}: {name}", name, HOSTS, others=True)


def _refuse_unknown(what: str, name: str, known: Mapping[str, Kind], *, others: bool) -> None:
    near = near_option(name) if known is HOSTS else None
    near = near or next(iter(difflib.get_close_matches(name.lower().replace("-", "_"), known, 1, 0.8)), None)
    if near:
        raise Usage(f"{what}: nobody asks for it; write {near}, or another name")
    if not others:
        raise Usage(f"{what}: nobody asks for it; correct the name, or leave it out (docs/operations.md lists them)")

"""git as a program: its words and environment, so that it starts nothing that a repository names, or as its operator.

The environment is closed, and every setting of the repository's own by which git would start a program is overruled.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.base.process import Completed

_SHOWN = 600  # characters of git's words

# The operator's own word on where their configuration is. All else that begins with GIT_ is dropped: it may name
# another repository, index or configuration (a hook's environment does).
_CONFIGURATION = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")
# And who they are, and how their hooks reach other machines.
_COMMITTING = (
    *(f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL", "DATE")),
    *("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT", "GIT_ASKPASS"),
)
# What a git that only looks is given; HOME and SUDO_UID are what `safe.directory` goes by, GNUPGHOME is their keyring.
_KEPT = ("PATH", "HOME", "XDG_CONFIG_HOME", "USER", "LOGNAME", "SUDO_UID", "TMPDIR", "GNUPGHOME", *_CONFIGURATION)
_QUIET = {"LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
# History is what the commits say, whatever replacements, grafts or missing objects a repository comes with.
_LOOKING = {
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": os.devnull,
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
}
_ALWAYS = {
    "advice.graftfiledeprecated": "false",
    "core.checkstat": "default",
    "core.fsmonitor": "false",
    "core.hookspath": os.devnull,
    "core.ignorestat": "false",
    "core.pager": "cat",
    "core.trustctime": "true",
    "core.untrackedcache": "false",
    "log.showsignature": "false",
    "protocol.allow": "never",
    "safe.barerepository": "explicit",
    "submodule.recurse": "false",
}
# Settings of a repository by which git would start a program, or trust somebody. Where the operator has the same
# setting, theirs counts; else these, or nothing.
_PROGRAMS = re.compile(
    r"filter\..*|diff\.external|diff\..*\.(command|textconv)"
    r"|gpg\.(.*\.)?(program|allowedsignersfile|revocationfile|defaultkeycommand)"
    r"|lfs\.(extension|customtransfer)\..*|lfs\.standalonetransferagent"
    r"|remote\..*\.promisor|core\.(attributesfile|sshcommand|gitproxy|askpass|alternaterefscommand)"
)
_USUAL = {
    "gpg.program": "gpg",
    "gpg.openpgp.program": "gpg",
    "gpg.x509.program": "gpgsm",
    "gpg.ssh.program": "ssh-keygen",
}
# A submodule would be looked at by its own settings; the tree's attributes would choose among the operator's drivers.
_NO_DRIVERS = ("--no-ext-diff", "--no-textconv")
_WITH = {
    "status": ("--ignore-submodules=dirty",),
    "diff": ("--ignore-submodules=dirty", *_NO_DRIVERS),
    "log": (*_NO_DRIVERS, "--no-show-signature"),
    "show": (*_NO_DRIVERS, "--no-show-signature"),
}


def overruled(settings: str) -> dict[str, str]:
    """What the repository's own programs are overruled by, from `git config --null --show-scope --list`."""
    fields = settings.split("\0")
    operators: dict[str, str] = {}
    found: list[str] = []
    for scope, entry in zip(fields[::2], fields[1::2], strict=False):
        name, _, value = entry.partition("\n")
        if scope in ("system", "global"):
            operators[name] = value
        elif scope != "command" and _PROGRAMS.fullmatch(name):
            found.append(name)
    switches = {name: "false" for name in found if name.endswith((".required", ".promisor"))}
    return {name: operators.get(name, _USUAL.get(name, "")) for name in found} | switches


Call = tuple[Sequence[str], Mapping[str, str]]
"""argv, and all of the environment"""


def looking(directory: Path, overruled: Mapping[str, str], words: Sequence[str], index: Path | None = None) -> Call:
    """git with nothing but what it needs, and settings that count more than the repository's."""
    env = {name: os.environ[name] for name in _KEPT if name in os.environ}
    settings = {**overruled, **_ALWAYS}
    for number, (name, value) in enumerate(settings.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    if index is not None:
        env["GIT_INDEX_FILE"] = str(index)
    words = (words[0], *_WITH.get(words[0], ()), *words[1:])
    return _argv(directory, words), {**env, **_QUIET, **_LOOKING, "GIT_CONFIG_COUNT": str(len(settings))}


def as_operator(directory: Path, words: Sequence[str]) -> Call:
    """git as its operator would run it: hooks, filters, signing and agents included, no other repository's names."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {name: os.environ[name] for name in (*_CONFIGURATION, *_COMMITTING) if name in os.environ}
    return _argv(directory, words), {**env, **_QUIET}


def _argv(directory: Path, words: Sequence[str]) -> list[str]:
    literal = () if words[0] == "check-ignore" else ("--literal-pathspecs",)  # it knows none but such
    return ["git", "-C", str(directory), *literal, *words]


def answer(done: Completed, directory: Path, answers: Collection[int] | None = (0,)) -> Completed:
    """What git answered. FleetError when it is none: all that it said, which names the remedy."""
    if answers is not None and done.status not in answers:
        words = " ".join(done.stderr.split()).removeprefix("fatal: ")[:_SHOWN]
        raise FleetError(f"{directory}: git: {words or f'status {done.status}'}")
    return done

"""Explain Nix's errors in one line each: where in the fleet's files, what, and the remedy if there is one.

The messages are those of Nix 2.26 to 2.31 and of nixpkgs' lib/modules.nix and check-meta.nix (24.05 to 26.11).
"""

import difflib
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nixherd.base.errors import ProcessFailed
from nixherd.nix.log import LoggedError, builder_output, errors, plain_lines
from nixherd.nix.places import COPY, Fleet, Place, fleet_files, option_names

_SHOWN = 1000  # characters
_VALUE = 120  # characters of an option's value
_BUILDER_LINES = 5
_SIMILAR = 0.75  # how similar names are that one of them may be meant (difflib)
_DEFAULT = "correct the Nix there"
_OUTPUTS = re.compile(r"flake .* does not provide attribute .*'([^']+)'")
_UNKNOWN_OPTION = re.compile(r"(?s)The option `(?P<option>.+?)' does not exist\. Definition values:(?P<values>.*)")
_DEFINED = re.compile(
    r"^\s*- In `(?P<file>[^']+)'(?:: ?(?P<value>.*?))?(?=\n\s*- In `|\n\S|\n\n|\Z)", re.DOTALL | re.MULTILINE
)
_OPTION = re.compile(
    r"(?P<what>(?:A definition for option|The option) `(?P<option>.+?)' (?:is not of type `.*?'"
    r"|has conflicting definition values|is read-only, but it's set multiple times"
    r"|is defined multiple times while it's expected to be unique))"
    r"(?P<values>.*)",
    re.DOTALL,
)
_MEANT = re.compile(r"Did you mean (?P<names>.+?)\?\s*$", re.DOTALL)
_INPUT = re.compile(r"while updating the flake input '([^']+)'")
_MISSING_PATH = re.compile(r"path '(?P<path>[^'\n]+)' does not exist|opening file '(?P<file>[^'\n]+)': No such file")
_UNTRACKED = re.compile(r"Path '(?P<path>[^'\n]+)' .*is not tracked by Git")
_BUILDER = re.compile(r"builder for '|Cannot build '[^']*'\.? Reason: builder failed|the builder said")
_DERIVATION = re.compile(r"(?:builder for|Cannot build) '(/nix/store/[^']+\.drv)'")
# What a program that Nix started says of why, before Nix says that the revision does not exist.
_PROGRAM = re.compile(r"^(?:ssh: |fatal: |Host key verification failed|Permission denied|.*: Permission denied \()")


@dataclass(frozen=True)
class _Kind:
    """A kind of error by its message, and what to do about it; {0} is the first group.

    `here` marks what says nothing of the fleet's files: the network, the disk, this machine. `is_placed` tells whether
    the place where Nix came to it helps.
    """

    message: str
    remedy: str = ""
    here: bool = False
    is_placed: bool = True

    def match(self, what: str) -> re.Match[str] | None:
        return re.search(self.message, what)

    def remedy_of(self, what: str) -> str:
        match = self.match(what)
        return self.remedy.format(*match.groups()) if match else ""


_here = partial(_Kind, here=True, is_placed=False)


_KINDS = (
    _here(
        r"Could not resolve host|Temporary failure in name resolution|Name or service not known|Network is unreachable"
        r"|No route to host",
        "check this machine's network and DNS, and run it again",
    ),
    _here(r"HTTP error (?:407|5\d\d)", "the server does not serve it now: run it again later"),
    _here(
        r"HTTP error (?:401|403|429)",
        "give Nix a token for this server (access-tokens in nix.conf), or wait until its rate limit is over",
    ),
    _Kind(
        r"HTTP error 404|[Rr]epository not found|not appear to be a git repository|Cannot find Git revision"
        r"|revspec '",
        "correct the input's URL or revision, or give Nix a token if it is private (access-tokens in nix.conf)",
    ),
    _here(r"Host key verification failed|Permission denied \(publickey", "check `ssh` to this server as this user"),
    _here(
        r"[Cc]annot connect to (?:socket|daemon)|[Cc]annot open connection",
        "start the Nix daemon (`systemctl start nix-daemon.socket`)",
    ),
    _here(
        r"No space left on device|Disk quota exceeded", "make room (`nix-collect-garbage` removes what nothing needs)"
    ),
    _here(
        r"[Oo]ut of memory|Cannot allocate memory|Too many heap sections",
        "give it more memory or swap, or evaluate fewer hosts at a time",
    ),
    _here(r"Too many open files", "raise the limit of open files (`ulimit -n`)"),
    _here(
        r"is required to build '/nix/store/|Required system: ",
        "this machine does not build that: say build_on=target, or a host that does, or give Nix a builder for it "
        "(`builders` in nix.conf, boot.binfmt)",
    ),
    _here(
        r"lacks a signature by a trusted key",
        "sign it, or add its signer's public key to trusted-public-keys in nix.conf",
    ),
    _here(r"there is no substituter that can build it", "build it again, or add the cache that has it (substituters)"),
    _here(r"[Ii]nterrupted by the user"),
    _here(r"database is busy|SQLite database .* is busy", "another Nix is working in this store: run it again"),
    _here(r"not owned by current user", "run this as the owner of the repository, or add it to git's safe.directory"),
    _here(
        r"(?:/nix/(?:store|var)|SQLite database).*(?:Permission denied|Read-only file system)|opening lock file",
        "run it as a user of the Nix daemon, or as root",
    ),
    _here(r"unrecogni[sz]ed flag|is not a recognised (?:command|flag)", "this Nix is too old: install 2.19 or later"),
    _Kind(r"experimental Nix feature '([^']+)' is disabled", "add {0} to experimental-features in nix.conf", here=True),
    _here(
        r"unable to (?:download|fetch)|[Ff]ailed to fetch|[Tt]imed out|Connection (?:refused|reset)"
        r"|Could not connect to server|[Cc]ould not read from remote repository",
        "check that this machine reaches it, and run it again",
    ),
    _Kind(
        r"mismatch in field 'narHash' of input|NAR hash mismatch in input",
        "it is not what flake.lock says: find out why, and `nix flake update` that input if it is meant",
        is_placed=False,
    ),
    _Kind(r"hash mismatch in ", "write the hash that it got, if this change is meant"),
    _Kind(
        r"requires lock file changes|unlocked input|is not locked|unlocked flake reference",
        "`nix flake lock` there, and commit flake.lock",
        is_placed=False,
    ),
    _Kind(
        r"cannot find flake 'flake:([^']+)' in the flake registries", "add inputs.{0}.url to flake.nix", is_placed=False
    ),
    _Kind(
        r"is not part of a flake|does not contain a '?/?flake\.nix|could not find a flake\.nix",
        "make a flake.nix there, or name the directory that has one",
        is_placed=False,
    ),
    _Kind(
        r"because it has an unfree license", "take the package out, or allow it (nixpkgs.config.allowUnfreePredicate)"
    ),
    _Kind(r"marked as insecure", "take the package out, or allow it (nixpkgs.config.permittedInsecurePackages)"),
    _Kind(
        r"because it has problems|marked as broken|not available on the requested hostPlatform",
        "take the package out, or use another version of it",
    ),
    _Kind(r"Failed assertions:", "", is_placed=False),
    _Kind(
        r"access to absolute path '([^']+)' is forbidden in pure ",
        "a flake sees its own files alone: copy it into the repository, `git add` it there, and import that",
    ),
    _Kind(r"cannot look up '<([^>]+)>' in pure ", "a flake has no NIX_PATH: make {0} one of its inputs, and use that"),
    _Kind(r"The option `(.+?)' (?:was accessed|is used) but (?:has no value|not) defined", "give it a value"),
)


@dataclass(frozen=True)
class Explanation:
    """One error: `place` in the fleet's files, `what` in one line, `remedy` empty where nobody can tell one."""

    place: Place | None
    what: str
    remedy: str = ""

    @property
    def text(self) -> str:
        return f"{self.what}{f'; {self.remedy}' if self.remedy else ''}"

    def of(self, directory: Path) -> str:
        """Return the line for the fleet in a directory."""
        return f"{self.place or f'{directory}: Nix cannot evaluate the fleet'}: {self.text}"


def explain(stderr: str, directory: Path, within: Path | None = None) -> str:
    """Explain in one line why Nix could not evaluate the fleet in `directory`, from a log of LOG_FORMAT.

    `within` is the repository that the fleet is in, where Nix is given the files themselves.
    """
    return explanation(stderr, directory, within).of(directory)


def explain_failure(error: ProcessFailed, directory: Path) -> str:
    """Explain the end of a `nix` that evaluated the fleet in a directory; one that was killed leaves no error."""
    if error.status < 0:
        name = signal.Signals(-error.status).name
        why = "; this machine may lack memory: give it more, or evaluate fewer hosts" if name == "SIGKILL" else ""
        return f"{directory}: Nix was killed by {name} while it evaluated the fleet{why}"
    return explain(error.stderr, directory)


def explanation(stderr: str, directory: Path, within: Path | None = None) -> Explanation:
    """Explain the first error of a log."""
    return _explained(errors(stderr)[0], stderr, fleet_files(directory, within))


def explanations(stderr: str, directory: Path) -> Iterator[tuple[Explanation, str]]:
    """Explain all errors of a log that goes on after the first one (`--keep-going`); each with its trace."""
    fleet = fleet_files(directory)
    for error in errors(stderr, logged=True):
        yield _explained(error, stderr, fleet), error.trace


def _explained(error: LoggedError, stderr: str, fleet: Fleet) -> Explanation:
    message = error.message
    for special in (_of_output, _of_option, _of_missing_path):
        if explained := special(error, fleet):
            return explained
    if why := next((line for line in plain_lines(stderr) if _PROGRAM.match(line)), None) if _is_git(message) else None:
        message = f"{message} ({why})"
    what, message = fleet.readable(_summary(message)), _one_line(message)
    if _BUILDER.search(message):
        return _of_builder(error, what, fleet)
    kind = next((kind for kind in _KINDS if kind.match(message)), None)
    place = fleet.last_mentioned(error.trace) if kind is None or kind.is_placed else None
    if name := _input_of(error, fleet):
        place = place or (None if kind and kind.here else fleet.definition("flake.nix", f"inputs.{name}"))
        what = f"input {name}: {what}"
    elif place is None and (input_place := fleet.last_in_input(error.trace)) and kind is None:
        what = f"{what} (in an input: {input_place})"
    if kind is None:
        return Explanation(place, what, _meant(error.trace) or (_DEFAULT if place else ""))
    return Explanation(place, what, kind.remedy_of(message))


def _is_git(message: str) -> bool:
    return bool(re.search(r"revspec '|Cannot find Git revision|program 'git' failed|[Gg]it.*exit code", message))


def _input_of(error: LoggedError, fleet: Fleet) -> str | None:
    """Return the input that Nix was fetching."""
    if updated := _INPUT.findall(error.trace):
        return str(updated[-1])
    fetched = re.findall(r"while fetching the input '([^']+)'", error.trace)
    return next((name for key, name in fleet.inputs.items() if key in fetched[-1]), None) if fetched else None


def _summary(message: str) -> str:
    """Return one line without nixpkgs' ways to allow a package, and Nix's to evaluate anything: they all depend on how
    Nix is called.
    """
    message = message.replace(" (use '--impure' to override)", "")
    return _one_line(re.split(r"\n\s*(?:a\) To temporarily|You can install it anyway|See also https?://)", message)[0])


def _of_output(error: LoggedError, fleet: Fleet) -> Explanation | None:
    lacking = _OUTPUTS.search(_one_line(error.message))
    if lacking is None:
        return None
    place = Place(f"{fleet.directory}/flake.nix")
    return Explanation(place, f"it has no {lacking[1]}", _meant(error.trace) or "add it")


def _of_option(error: LoggedError, fleet: Fleet) -> Explanation | None:
    """Explain an error of nixpkgs' module system: it names the files that define the option."""
    message, meant = _MEANT.sub("", error.message), _MEANT.search(error.message)
    unknown = _UNKNOWN_OPTION.search(message)
    wrong = unknown or _OPTION.search(message)
    if wrong is None:
        return None
    option = wrong["option"]
    definitions = [
        (fleet.definition(file, option) if (file := fleet.file(each["file"])) else each["file"], each["value"] or "")
        for each in _DEFINED.finditer(f"{wrong['values']}\n")
    ]
    ours = [place for place, _ in definitions if isinstance(place, Place)]
    place = ours[0] if ours else None
    if unknown:
        more = f" (also in {', '.join(map(str, ours[1:]))})" if ours[1:] else ""
        near = _near(option, meant["names"] if meant else "")
        remedy = near or "correct its name, or import the module that declares it"
        return Explanation(place, f"the option `{option}' does not exist{more}", remedy)
    values = [_one_line(value)[:_VALUE] for _, value in definitions]
    if len(definitions) > 1:
        values = [f"{value} ({_name(where, fleet)})" for (where, _), value in zip(definitions, values, strict=True)]
    what = f"{_one_line(wrong['what'])}{': ' if values else ''}{', '.join(values)}"
    conflict = "keep one of them, or give one priority (lib.mkForce, lib.mkDefault)"
    return Explanation(place, what, _DEFAULT if "of type" in wrong["what"] else conflict)


def _name(place: Place | str, fleet: Fleet) -> str:
    return str(place) if isinstance(place, Place) else fleet.readable(place)


def _near(option: str, names: str) -> str:
    """Return those of nixpkgs' three suggested options that are near."""
    suggested = re.findall(r"`([^'\n]+)'", names)
    near = difflib.get_close_matches(option, suggested, cutoff=_SIMILAR)
    last = option_names(option)[-1]
    near = [each for each in near if difflib.SequenceMatcher(None, option_names(each)[-1], last).ratio() >= _SIMILAR]
    return f"did you mean {' or '.join(near)}?" if near else ""


def _meant(trace: str) -> str:
    """Return what Nix itself suggests."""
    meant = _MEANT.search(trace)
    return f"did you mean {_one_line(meant['names'])}?" if meant else ""


def _of_missing_path(error: LoggedError, fleet: Fleet) -> Explanation | None:
    """Explain a file that does not exist, or that git, and so Nix, does not know."""
    missing = _MISSING_PATH.search(error.message) or _UNTRACKED.search(error.message)
    if missing is None:
        return None
    path = next(each for each in missing.groups() if each)
    copy, name = COPY.match(path), _input_of(error, fleet)
    if name and path.endswith("/flake.nix"):
        place: Place | None = fleet.definition("flake.nix", f"inputs.{name}")
        remedy = f"set inputs.{name}.flake = false, or correct its URL"
        return Explanation(place, f"input {name}: it has no flake.nix", remedy)
    place = fleet.last_mentioned(error.trace)
    what = fleet.readable(_one_line(error.message))
    if owner := fleet.input_of(path):
        return Explanation(place, f"the input {owner[0]} has no {owner[1]}", _DEFAULT if place else "")
    is_ours = copy is not None and (fleet.is_copied_to(copy[0]) or fleet.is_its_flake(path[copy.end() :]))
    if path.startswith("/") and not is_ours:
        return Explanation(place, f"input {name}: {what}" if name else what, _DEFAULT if place else "")
    below = fleet.below(path[copy.end() :] if copy else path)
    place = place or fleet.literal(below) or Place(below)
    if module := fleet.submodule_of(below):
        remedy = f"it is in the git submodule {module}: set inputs.self.submodules = true in flake.nix (Nix 2.27)"
        return Explanation(place, what, remedy)
    if (fleet.directory / below).exists():
        return Explanation(place, what, f"`git add {below}`, Nix sees only what git knows")
    return Explanation(place, what, "create it, or correct the path")


def _of_builder(error: LoggedError, what: str, fleet: Fleet) -> Explanation:
    """Explain a builder that failed during the evaluation (import from derivation), or in a check."""
    output = f"; the builder said: {' / '.join(error.builder[-_BUILDER_LINES:])}" if error.builder else ""
    drv = _DERIVATION.search(error.message)
    remedy = f"`nix log {drv[1]}` has all that its builder said" if drv else ""
    return Explanation(fleet.last_mentioned(error.trace), f"{what.rstrip(';')}{output}", remedy)


# For those who want the message alone


def is_circumstance(what: str) -> bool:
    """Tell whether an error is of where Nix runs (network, disk, machine), and says nothing of the fleet's files."""
    return not _BUILDER.search(what) and any(kind.here and kind.match(what) for kind in _KINDS)


def cause(stderr: str, directory: Path, within: Path | None = None) -> tuple[str | None, str]:
    """Return where it is, if that is known, and what, in one line; without a remedy."""
    error, fleet = errors(stderr)[0], fleet_files(directory, within)
    place = fleet.last_mentioned(error.trace)
    return str(place) if place else None, fleet.readable(_one_line(error.message))


def last_error(stderr: str) -> str:
    """Return the last error of a log that does not follow from another, in one line: a builder's with its output."""
    output = builder_output(stderr)
    what = _one_line(errors(stderr)[-1].message).rstrip(";")
    if output:
        return f"{what}; the builder said: {' / '.join(output[-_BUILDER_LINES:])}"[-_SHOWN:]
    remedies = [kind.remedy_of(what) for kind in _KINDS if kind.here and kind.match(what)]
    return "; ".join([what[-_SHOWN:], *filter(None, remedies[:1])])


def reason_of(error: Exception) -> str:
    """Return why one of Nix's programs failed: its last error, else the error's own text."""
    return last_error(error.stderr) if isinstance(error, ProcessFailed) and error.stderr else str(error)


def innermost_error(stderr: str) -> str:
    """Return the same without what Nix was doing when it came to that."""
    return last_error(stderr).rpartition("error: ")[2]


def is_unsigned(stderr: str) -> bool:
    """Tell whether a store refused a path because it lacks a signature that it trusts."""
    return "lacks a signature by a trusted key" in stderr


def _one_line(text: str) -> str:
    return " ".join(text.split())

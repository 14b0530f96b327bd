"""What sops-nix has put on a machine: one script that looks at every secret and template, and what follows from it.

sops-nix writes a generation (`/run/secrets.d/7`), leads one link to it (`/run/secrets`), and makes a link at the path
of each secret that has another than the default, to `/run/secrets/NAME` (pkgs/sops-install-secrets/main.go). What is
in a file is hashed on the machine, and not read here. Pure.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nixherd.base.errors import EndUnknown, FleetError
from nixherd.base.terminal import visible
from nixherd.nix.declared import Declared, DeclaredSecret, DeclaredTemplate

SYSTEM, BEFORE_USERS, RENDERED = "/run/secrets", "/run/secrets-for-users", "rendered"
UMASK = 0o022  # of NixOS' activation, which a template's mode does not suffer
_BEGIN, _END = "nixherd-secrets", "nixherd-secrets-end"
_SALT = re.compile(r"[0-9a-f]*")
_LINE = re.compile(r"([a-z0-9.]+)=(.*)")
_ENTRY = re.compile(r"([0-7]+) (\d+) (\d+) (\S+) (\S+) (\d+) (.+)")
# $1 names a path in the answer, $2 is the path. What `stat` says otherwise is kept as the reason.
_FUNCTIONS = f"""
LC_ALL=C; export LC_ALL
say() {{ printf '%s=%s\\n' "$1" "$2"; }}
lies() {{
  if found=$(stat -c '%a %u %g %U %G %s %F' -- "$2" 2>&1); then say "$1.is" "$found"; return 0; fi
  case $found in
    *'No such file or directory' | *'Not a directory') say "$1.is" absent;;
    *) say "$1.why" "$found";;
  esac
  return 1
}}
directory() {{ lies "$1" "$2" && say "$1.real" "$(readlink -f -- "$2")"; }}
entry() {{
  lies "$1" "$2" || return 0
  say "$1.real" "$(readlink -f -- "$2")"
  case $found in *' regular '*) ;; *) return 0;; esac
  if why=$( {{ : <"$2"; }} 2>&1 ); then
    hash=$({{ printf %s "$salt"; cat -- "$2"; }} | sha256sum) && say "$1.hash" "${{hash%% *}}"
  else
    say "$1.why" "$why"
  fi
}}
linked() {{ lies "$1" "$2" && say "$1.real" "$(readlink -f -- "$2")"; }}
home() {{
  r=${{XDG_RUNTIME_DIR:-/run/user/$(id -u)}}
  [ "$(id -un)" != "$2" ] || {{ seen "$1"; return 0; }}
  if [ "$(id -u)" != 0 ]; then say "$1.why" "the way in is for $(id -un)"; return 1; fi
  if ! uid=$(id -u -- "$2" 2>&1); then say "$1.why" "$uid"; return 1; fi
  r=/run/user/$uid
  seen "$1"
}}
seen() {{ if [ -d "$r" ]; then say "$1.run" yes; else say "$1.run" no; fi; }}
echo {_BEGIN}
"""
_LISTING = f"""
directories=0
for directory in {SYSTEM} {BEFORE_USERS}; do
  directories=$((directories + 1)); files=0
  lies "$directories" "$directory" || continue
  if ! found=$(find "$directory/" -type f 2>&1); then
    say "$directories.why" "$(printf '%s\\n' "$found" | head -n 1)"
    continue
  fi
  printf '%s\\n' "$found" | sort | while IFS= read -r file; do
    [ -n "$file" ] || continue
    files=$((files + 1))
    say "$directories.$files.path" "$directory/${{file#"$directory/"}}"
    entry "$directories.$files" "$file"
  done
done
"""


class Verdict(StrEnum):
    """What is known of a secret on its machine; the value is said to people."""

    DECRYPTED = "decrypted"
    DIFFERS = "not as declared"
    MISSING = "not decrypted"
    SHADOWED = "not linked"
    LATER = "not decrypted yet"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Place:
    """Where sops-nix is to have put a secret, or a template: `name` below `directory`, and a link at `path`.

    `directory` and `path` of a home may have `%r` in them, the user's runtime directory.
    """

    name: str
    directory: str
    path: str
    mode: int
    owner: str
    group: str
    user: str | None = None
    secret: DeclaredSecret | None = None
    """None for a template"""

    @property
    def entry(self) -> str:
        return f"{self.directory}/{self.name}"

    @property
    def label(self) -> str:
        """What people call it: by its path, which its users have."""
        return self.path

    @property
    def written_mode(self) -> int:
        """What the umask leaves of the mode that is declared."""
        return self.mode & ~UMASK if self.secret is not None and self.user is None else self.mode


def places(declared: Declared) -> tuple[Place, ...]:
    """Everything that a configuration declares, in its order; templates last."""
    return (
        *(_of_secret(declared, each) for each in declared.secrets),
        *(_of_template(declared, each) for each in declared.templates),
    )


def _of_secret(declared: Declared, secret: DeclaredSecret) -> Place:
    before = secret.needed_for_users
    # those for users are written before there are any
    owner, group = ("0", "0") if before else (secret.owner, secret.group)
    directory = _directory(declared, secret.user, before=before)
    return Place(secret.name, directory, secret.path, _mode(secret.mode), owner, group, secret.user, secret)


def _of_template(declared: Declared, template: DeclaredTemplate) -> Place:
    name, directory = f"{RENDERED}/{template.name}", _directory(declared, template.user)
    mode = _mode(template.mode)
    return Place(name, directory, template.path, mode, template.owner, template.group, template.user)


def _directory(declared: Declared, user: str | None, *, before: bool = False) -> str:
    if user is None:
        return BEFORE_USERS if before else SYSTEM
    try:
        return declared.symlinks[user]
    except KeyError:
        raise EndUnknown(f"{declared.host_id}: where the secrets of {user}'s home are is not known") from None


def _mode(text: str) -> int:
    try:
        return int(text, 8) & 0o777
    except ValueError:
        raise FleetError(f"{visible(text)} is not a mode; write one like 0440") from None


# The script and its answer


def script(looked_at: Sequence[Place], salt: str) -> str:
    """Print what lies at each place, with the content's hash after the salt. ValueError for a salt that is not one."""
    lines = [_begin(salt)]
    for user in dict.fromkeys(place.user for place in looked_at):
        of_user = [(number, place) for number, place in enumerate(looked_at) if place.user == user]
        body = list(_looks(of_user, user))
        if user is None:
            lines += body
        else:
            lines += [f"if home {_home(user, looked_at)} {shlex.quote(user)}; then", *body, "fi"]
    return "\n".join([*lines, f"echo {_END}", ""])


def listing(salt: str) -> str:
    """Print the same of every file that the system's secrets and templates have, whoever declares them."""
    return f"{_begin(salt)}{_LISTING}echo {_END}\n"


def _begin(salt: str) -> str:
    if not _SALT.fullmatch(salt):
        raise ValueError("the salt is hexadecimal digits")
    return f"{_FUNCTIONS}salt={salt}"


def _looks(numbered: Iterable[tuple[int, Place]], user: str | None) -> Iterator[str]:
    directories = dict[str, None]()
    for number, place in numbered:
        directories.setdefault(place.directory)
        yield f"entry {number} {_word(place.entry, user)}"
        if place.path != place.entry:
            yield f"linked {number}.at {_word(place.path, user)}"
    for directory in directories:
        yield f"directory {_key(directory)} {_word(directory, user)}"


def _home(user: str, looked_at: Sequence[Place]) -> str:
    return f"home.{list(dict.fromkeys(place.user for place in looked_at)).index(user)}"


def _key(directory: str) -> str:
    """A name for a directory in the answer."""
    return f"dir.{directory.encode().hex()}"


def _word(path: str, user: str | None) -> str:
    """A path as a word of the shell; `%r` of a home is its variable, `%%` a percent sign."""
    if user is None:
        return shlex.quote(path)
    parts = (
        "".join(
            f'"$r"{shlex.quote(each)}' if index else shlex.quote(each) for index, each in enumerate(part.split("%r"))
        )
        for part in path.split("%%")
    )
    return "%".join(parts)


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies at a path, no link followed; `real` is where it leads, and `why` says what could not be seen of it."""

    kind: str | None = None
    """as `stat` calls it; None where nothing is there, or that is not known"""
    mode: int = 0
    owners: tuple[str, str] = ("", "")
    """the user by number and by name"""
    groups: tuple[str, str] = ("", "")
    size: int = 0
    real: str = ""
    hash: str = ""
    why: str = ""

    @property
    def is_file(self) -> bool:
        return self.kind is not None and self.kind.startswith("regular")


@dataclass(frozen=True)
class Sight:
    """What the machine answered: `entries` and `links` by the number of the place, `directories` by their path."""

    entries: Mapping[int, Entry] = field(default_factory=dict)
    links: Mapping[int, Entry] = field(default_factory=dict)
    directories: Mapping[str, Entry] = field(default_factory=dict)
    homes: Mapping[str, str] = field(default_factory=dict)
    """by user `yes` or `no`, whether it has a runtime directory; or why that is not known"""


def parse(lines: Iterable[str], looked_at: Sequence[Place]) -> Sight:
    """The answer to `script`. FleetError where it does not say all that was asked for."""
    values = values_between(lines, _BEGIN, _END)
    users = list(dict.fromkeys(place.user for place in looked_at))
    numbers = range(len(looked_at))
    homes = {
        user: values.get(f"home.{index}.run") or values.get(f"home.{index}.why", "")
        for index, user in enumerate(users)
        if user
    }
    directories = {place.directory: _entry(values, _key(place.directory)) for place in looked_at}
    entries = {number: _entry(values, str(number)) for number in numbers}
    linked = [number for number in numbers if looked_at[number].path != looked_at[number].entry]
    return Sight(entries, {number: _entry(values, f"{number}.at") for number in linked}, directories, homes)


def parse_listing(lines: Iterable[str]) -> dict[str, Entry]:
    """The answer to `listing`, by path. FleetError where not all can be seen."""
    values = values_between(lines, _BEGIN, _END)
    found = {path: _entry(values, key.removesuffix(".path")) for key, path in values.items() if key.endswith(".path")}
    problems = [visible(value) for key, value in values.items() if key.endswith(".why")]
    problems += [entry.why or "one is gone" for entry in found.values() if entry.why or not entry.is_file]
    if problems:
        raise FleetError(f"not all of its secrets can be seen: {problems[0]}")
    return found


def values_between(lines: Iterable[str], begin: str, end: str) -> dict[str, str]:
    """The values `NAME=VALUE` between two marks. FleetError where an answer is cut off, or is not one."""
    inside, values = False, dict[str, str]()
    for line in lines:
        if line.strip() == begin:
            inside = True
        elif inside and line.strip() == end:
            return values
        elif inside:
            match = _LINE.fullmatch(line.rstrip("\r\n"))
            if match is None:
                raise FleetError(f"a line of its answer is not NAME=VALUE: {visible(line)[:80]}")
            values[match[1]] = match[2]
    raise FleetError("its answer was cut off" if inside else "it did not answer")


def _entry(values: Mapping[str, str], key: str) -> Entry:
    text, why, real = values.get(f"{key}.is"), values.get(f"{key}.why", ""), values.get(f"{key}.real", "")
    if text is None:  # never taken for nothing there
        return Entry(why=visible(why) or "its answer lacks it")
    if text == "absent":
        return Entry()
    match = _ENTRY.fullmatch(text)
    if match is None:
        return Entry(why=f"`stat` says {visible(text)[:80]}")
    mode, uid, gid, owner, group, size, kind = match.groups()
    owners, groups = (uid, owner), (gid, group)
    return Entry(kind, int(mode, 8), owners, groups, int(size), real, values.get(f"{key}.hash", ""), visible(why))


# What follows


@dataclass(frozen=True, slots=True)
class Proven:
    """A place with what is known of it; `why` says it, unless all is as declared. `notes` are said beside that."""

    place: Place
    verdict: Verdict
    why: str = ""
    entry: Entry = Entry()
    notes: tuple[str, ...] = ()


def judge(looked_at: Sequence[Place], sight: Sight) -> tuple[Proven, ...]:
    """What is known of each place."""
    return tuple(_judge(place, number, sight) for number, place in enumerate(looked_at))


def unknown(looked_at: Sequence[Place], why: str) -> tuple[Proven, ...]:
    """Nothing is known of any, for one reason."""
    return tuple(Proven(place, Verdict.UNKNOWN, why) for place in looked_at)


def _judge(place: Place, number: int, sight: Sight) -> Proven:
    entry, directory = sight.entries[number], sight.directories[place.directory]
    link = sight.links.get(number, Entry())
    if place.user is not None and sight.homes.get(place.user) not in ("yes", "no"):
        why = sight.homes.get(place.user) or "it does not say"
        return Proven(place, Verdict.UNKNOWN, f"{place.user}'s home: {why}")
    for each in (directory, entry, link):
        if each.why:
            return Proven(place, Verdict.UNKNOWN, each.why, entry)
    if not entry.is_file or directory.kind != "symbolic link" or entry.real != f"{directory.real}/{place.name}":
        if place.user is not None and sight.homes[place.user] == "no":
            why = f"nobody is logged in as {place.user} there: a home's secrets are decrypted when its user logs in"
            return Proven(place, Verdict.LATER, why, entry)
        return Proven(place, Verdict.MISSING, _missing(place, entry, directory), entry)
    if place.path != place.entry:
        if link.kind is None:
            return Proven(place, Verdict.SHADOWED, f"{place.path} does not exist", entry)
        if link.kind != "symbolic link":
            return Proven(place, Verdict.SHADOWED, f"{place.path} is a {_kind(link)} there, not sops-nix's link", entry)
        if link.real != entry.real:
            return Proven(place, Verdict.SHADOWED, f"{place.path} leads to {link.real or 'nothing'} there", entry)
    if not entry.hash:
        return Proven(place, Verdict.UNKNOWN, "it could not be read", entry)
    differences = list(_differences(place, entry))
    if differences:
        return Proven(place, Verdict.DIFFERS, ", ".join(differences), entry)
    return Proven(place, Verdict.DECRYPTED, "", entry, tuple(_notes(place, entry)))


def _missing(place: Place, entry: Entry, directory: Entry) -> str:
    if directory.kind is None:
        return f"{place.directory} does not exist"
    if directory.kind != "symbolic link":
        return f"{place.directory} is a {_kind(directory)} there, not sops-nix's link"
    if entry.kind is None:
        return f"it is not in {directory.real or 'the generation that its link leads to'}"
    if not entry.is_file:
        return f"{place.entry} is a {_kind(entry)} there"
    return f"{place.entry} leads to {entry.real}, which is not the current generation"


def _kind(entry: Entry) -> str:
    return "file" if entry.is_file else str(entry.kind)


def _differences(place: Place, entry: Entry) -> Iterator[str]:
    # what a user's umask leaves of a mode is the user's; more than is declared it cannot be
    is_right = entry.mode == place.written_mode or (place.user is not None and not entry.mode & ~place.mode)
    if not is_right:
        yield f"its mode is {entry.mode:04o}, declared {place.mode:04o}"
    for what, names, declared in (("owner", entry.owners, place.owner), ("group", entry.groups, place.group)):
        declared = place.user or "" if what == "owner" and place.user is not None else declared
        if declared and declared not in names:
            number, name = names
            present, declared = number if name == "UNKNOWN" else name, "root" if declared == "0" else declared
            yield f"its {what} is {present}, declared {declared}"


def _notes(place: Place, entry: Entry) -> Iterator[str]:
    if entry.size == 0:
        yield "empty, as its file says" if place.secret is not None else "empty"
    if entry.mode != place.mode and place.user is None:
        yield f"declared {place.mode:04o}, of which sops-nix's umask leaves this"

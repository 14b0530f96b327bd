"""The fleets of tests/fleets, one for each habit that people have with theirs, and what is expected of each.

They are small fleets of our own, with stand-ins of our own for libraries and tools (tests/fleets/inputs). A fleet is
copied into a git repository of its own and locked to the stand-ins, as its author has locked it to the real ones.
"""

import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FLEETS = Path(__file__).with_name("fleets")
INPUTS = FLEETS / "inputs"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHr0XQJzPKAyGJHXvWcsDGeSw3aLPLCHdTQbnrBHtmY al@desk"
"""may log in as root, as every fleet has it"""

_GIT = ("git", "-c", "user.name=al", "-c", "user.email=al@desk.invalid", "-c", "protocol.file.allow=always")
_NIX = ("nix", "--extra-experimental-features", "nix-command flakes")
_NIXPKGS = ("nixpkgs", "nixpkgs-unstable", "unstable")
Runs = Callable[[Sequence[str], Path], None]
"""runs a command in a directory, where `git`, `nix` and `nixherd` are on PATH; AssertionError where it fails"""
Reached = tuple[str | None, int | None, tuple[str, ...] | None]


@dataclass(frozen=True)
class Copy:
    """A fleet's copy: the top of its repository, and the fleet's directory in it."""

    top: Path
    directory: Path
    stand_ins: Path
    run: Runs = field(repr=False)

    def git(self, *words: str, cwd: Path | None = None) -> None:
        self.run([*_GIT, *words], cwd or self.top)

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace the last such text."""
        path = self.directory / name
        before, found, after = path.read_text().rpartition(old)
        assert found, f"{name} has no {old!r}"
        path.write_text(f"{before}{new}{after}")

    def lock(self) -> None:
        """As its author did with the real inputs; some of these have a nixpkgs of their own."""
        inputs = {path.parent.name: path.parent for path in (self.stand_ins / "inputs").glob("*/flake.nix")}
        inputs |= {path.name: path for path in INPUTS.iterdir()}
        nixpkgs = self.stand_ins / "nixpkgs"
        places = {**inputs, **dict.fromkeys((*_NIXPKGS, *(f"{name}/nixpkgs" for name in inputs)), nixpkgs)}
        pairs = (("--override-input", name, f"path:{path}") for name, path in places.items())
        self.run([*_NIX, "flake", "lock", *(word for pair in pairs for word in pair)], self.directory)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--no-verify", "--allow-empty", "--message", "as it is")


Added = Callable[[Copy, re.Match[str]], None]


@dataclass(frozen=True)
class Habit:
    """A fleet by its directory's name, and what is expected of it.

    `hosts` are those that it has, as it is or with what `line` says to add, which `added` does; without it there is
    nothing to be done that is small. `reached` is what it says of how they are reached: user, port, addresses. `wrong`
    are those of them that stop alone, and the pattern of why; `skipped` what the flake has besides. `prepared` makes of
    the copy what no directory of this repository can hold. `deployed` are the hosts for a machine of the lab, in turn.
    """

    name: str
    hosts: tuple[str, ...] = ("web",)
    line: str = ""
    added: Added | None = None
    below: str = ""
    reached: Mapping[str, Reached] = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    prepared: Callable[[Copy], None] | None = None
    deployed: tuple[str, ...] = ("web",)

    def copied(self, top: Path, stand_ins: Path, run: Runs, edited: Callable[[str], str] = str) -> Copy:
        """The fleet in a repository of its own at `top`, locked and committed, with all that it links to here.

        `stand_ins` has nixpkgs and the lab's inputs; `edited` is what becomes of each text.
        """
        shutil.copytree(FLEETS / self.name, top)
        for path in top.rglob("*.*"):
            path.write_text(edited(path.read_text()))
        copy = Copy(top, top / self.below, stand_ins, run)
        copy.git("init", "--quiet", "--initial-branch=main", "--template=")
        copy.git("add", "--all")
        if (copy.directory / "flake.nix").exists():
            copy.lock()
        if self.prepared:
            self.prepared(copy)
        copy.commit()
        return copy


# What the lines say, done


def _nixherd_nix(copy: Copy, match: re.Match[str]) -> None:
    (copy.directory / match["file"]).write_text(f"{match['text']}\n")


def _in_outputs(copy: Copy, match: re.Match[str]) -> None:
    """Beside what a function gives: `f x;` becomes `f x // { … };`."""
    copy.edit("flake.nix", ";\n}", f" // {{ {match['text']} }};\n}}")


def _in_node(copy: Copy, match: re.Match[str]) -> None:
    copy.edit("flake.nix", "deploy.nodes.web = {", f"deploy.nodes.web = {{ {match['text']}")


def _command(copy: Copy, match: re.Match[str]) -> None:
    program, *words = match["command"].split()
    words = ["--fleet", str(copy.directory), *words, "--yes"] if program == "nixherd" else words
    copy.run([program, *words], copy.directory)


def _around(copy: Copy, match: re.Match[str]) -> None:
    """The smallest flake that there is, with the file that the fleet has already."""
    shutil.copy(FLEETS / "one-file/flake.nix", copy.directory)
    copy.git("add", "--all")
    copy.lock()


def _copied_here(copy: Copy, match: re.Match[str]) -> None:
    copy.edit("flake.nix", "/etc/nixos/hardware-configuration.nix", "./hardware-configuration.nix")


# What no directory here can hold


def _linked(copy: Copy) -> None:
    """The flake's file at the top is a link to where the files are."""
    (copy.directory / "flake.nix").symlink_to("nixos/flake.nix")
    copy.git("add", "--all")
    copy.lock()


def _with_submodule(copy: Copy) -> None:
    common, other = copy.top / "common", copy.top.with_name(f"{copy.top.name}-common")
    copy.git("rm", "--quiet", "-r", "--cached", "common")
    shutil.move(common, other)
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--no-verify", "--message", "all")):
        copy.git(*words, cwd=other)
    copy.git("submodule", "--quiet", "add", str(other), "common")


def _untracked(copy: Copy) -> None:
    """A file that git does not know, as one that was written a minute ago."""
    copy.git("commit", "--quiet", "--message", "before")
    copy.git("rm", "--quiet", "--cached", "hardware-configuration.nix")
    (copy.top / ".git/info").mkdir(exist_ok=True)
    (copy.top / ".git/info/exclude").write_text("hardware-configuration.nix\n")


def _tracked(copy: Copy, match: re.Match[str]) -> None:
    (copy.top / ".git/info/exclude").unlink()
    _command(copy, match)


def _unreachable(copy: Copy) -> None:
    """The input is locked to a revision of a repository that nobody here can reach."""
    lock = copy.directory / "flake.lock"
    text, found = re.subn(
        r'"locked": \{[^}]*"path": "[^"]*/work",[^}]*\}',
        f'"locked": {{ "type": "git", "url": "file:///nowhere/work.git", "rev": "{"1" * 40}", "lastModified": 1, '
        f'"narHash": "sha256-{"A" * 43}=" }}',
        lock.read_text(),
    )
    assert found == 1, "flake.lock has no input work"
    lock.write_text(text)


# The line is the whole line, for there is one; what is to be done is a part of it.
_OWN = r"hosts\.nix: .*; where it is a file of your own, write (?P<file>nixherd\.nix): (?P<text>\{ .* \})"
_BY_SYSTEM = r".*KIND.*write beside it, in the flake's outputs: (?P<text>KIND = \S+;).*"
_INIT = r".*; `(?P<command>nixherd init[a-zA-Z -]*)` writes a nixherd\.nix that takes .*"
_AROUND = r".*neither flake\.nix nor hosts\.nix; FILE is .* without a flake, .*; write a flake around it, .*"
_ROOT_AT_WEB: Mapping[str, Reached] = {"web": ("root", None, ("web.example.org",))}
_WEB, _WEB_AND_DB = ("web",), ("db", "web")

HABITS = (
    Habit("one-file"),
    Habit("flake-parts", _WEB_AND_DB),
    Habit("dendritic"),
    Habit("snowfall", ("al@web", "web"), reached={"al@web": ("al", None, None)}, deployed=("web", "al@web")),
    Habit(
        "blueprint",
        ("al@web", "web"),
        _BY_SYSTEM.replace("KIND", "homeConfigurations"),
        _in_outputs,
        skipped=("legacyPackages.x86_64-linux.homeConfigurations",),
        deployed=("web", "al@web"),
    ),
    Habit("flake-utils-plus", ("desk", "web")),
    Habit(
        "outputs-by-system",
        ("al",),
        _BY_SYSTEM.replace("KIND", "homeConfigurations"),
        _in_outputs,
        skipped=("legacyPackages.x86_64-linux.homeConfigurations",),
        deployed=("al",),
    ),
    Habit(
        "systems-by-system",
        line=_BY_SYSTEM.replace("KIND", "nixosConfigurations"),
        added=_in_outputs,
        skipped=("packages.x86_64-linux.nixosConfigurations",),
    ),
    Habit("hive-raw", _WEB_AND_DB, reached=_ROOT_AT_WEB),
    Habit("hive-of-systems", _WEB_AND_DB, reached=_ROOT_AT_WEB),
    Habit("hive-made", reached=_ROOT_AT_WEB),
    Habit("hive-file", line=_AROUND.replace("FILE", r"hive\.nix"), added=_around),
    Habit("deploy-rs", reached=_ROOT_AT_WEB),
    Habit(
        "deploy-rs-custom",
        line=r".*deploy\.nodes\.web: has no profiles\.system, .*; write there: (?P<text>profiles\.system = .*;)",
        added=_in_node,
        reached=_ROOT_AT_WEB,
    ),
    Habit("clan", _WEB_AND_DB, reached={**_ROOT_AT_WEB, "db": ("root", 2222, ("192.0.2.11",))}),
    Habit("hosts-directory", _WEB_AND_DB),
    Habit("names-of-a-list", ("cache", "db", "web")),
    Habit("make-host", _WEB_AND_DB),
    Habit("lib-of-self"),
    Habit("infra", ("home-web", "office-db"), deployed=("home-web",)),
    Habit("sub-flake", below="nixos"),
    Habit("linked-flake", prepared=_linked),
    Habit(
        "submodule",
        wrong={"web": r".*it is in the git submodule common: set inputs\.self\.submodules = true in flake\.nix .*"},
        prepared=_with_submodule,
        deployed=(),  # before Nix 2.27, nobody can
    ),
    Habit("secrets-input"),
    Habit("private-input", ("office", "web"), wrong={"office": r".*input work: .*"}, prepared=_unreachable),
    Habit("ports", _WEB_AND_DB, reached={"web": ("root", None, None), "db": ("root", 2222, None)}),
    Habit(
        "homes",
        ("al@laptop", "al@web", "bo@web"),
        reached={"al@web": ("al", None, None), "bo@web": ("bo", None, None)},
        deployed=("al@web",),
    ),
    Habit(
        "home-beside-system",
        ("web", "web-home"),
        reached={"web-home": ("root", None, None)},
        deployed=("web", "web-home"),
    ),
    Habit("hosts-function", line=_OWN, added=_nixherd_nix),
    Habit("hosts-list", _WEB_AND_DB, line=_OWN, added=_nixherd_nix),
    Habit("hosts-module", line=_OWN, added=_nixherd_nix),
    Habit("hosts-settings", line=_OWN, added=_nixherd_nix),
    Habit(
        "hosts-ip",
        _WEB_AND_DB,
        _INIT,
        _command,
        reached={"web": ("root", None, ("192.0.2.10",)), "db": ("root", None, ("192.0.2.11",))},
    ),
    Habit("hosts-ssh", line=_INIT, added=_command, reached={"web": ("root", 22, ("web.example.org",))}),
    Habit("hosts-target", line=_INIT, added=_command, reached=_ROOT_AT_WEB),
    Habit("other-host-name"),
    Habit("dots-and-capitals", ("DESKTOP-4F2", "db.example.org", "nas_1"), deployed=("db.example.org",)),
    Habit("two-architectures", ("pi", "web")),
    Habit("two-nixpkgs", ("desk", "web")),
    Habit("specialisations"),
    Habit("mac-beside", skipped=("darwinConfigurations.Als-MacBook-Pro",)),
    Habit(
        "mac-alone",
        (),
        r".*darwinConfigurations\.Als-MacBook-Pro is not one of ours: nix-darwin's configurations are for Macs; .*",
        deployed=(),
    ),
    Habit(
        "wrong-hosts",
        ("asserted", "missing", "mistyped", "thrown", "web"),
        wrong={
            "asserted": r".*Failed assertions: - a disk is missing",
            "missing": r"flake\.nix:.*'missing\.nix' does not exist; create it, or correct the path",
            "mistyped": r".*the option `services\.openssh\.enabel' does not exist; .*",
            "thrown": r"flake\.nix:.*: not written yet; .*",
        },
    ),
    Habit("built-while-evaluated", _WEB_AND_DB, wrong={"db": r"flake\.nix:.*'.*broken\.nix\.drv' failed.*"}),
    Habit(
        "impure",
        line=r".*access to absolute path '/etc[^']*' is forbidden .*; .*: copy it into the repository, .*",
        added=_copied_here,
    ),
    Habit(
        "untracked",
        line=r".*; `(?P<command>git add hardware-configuration\.nix)`, Nix sees only what git knows",
        added=_tracked,
        prepared=_untracked,
    ),
    Habit("npins", line=_AROUND.replace("FILE", r"default\.nix"), added=_around),
    Habit("etc-nixos", line=_AROUND.replace("FILE", r"configuration\.nix"), added=_around),
)


def named(habits: Iterable[Habit]) -> list[str]:
    return [habit.name for habit in habits]

"""What a machine or a home says of itself, one script each, parsed: what runs, its generations, its installation."""

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypedDict, cast

from nixherd.base.answers import below, values_of
from nixherd.base.becoming_root import Become
from nixherd.base.errors import FAILURES, FleetError, NotBegun, Usage
from nixherd.base.reasons import failure, reason
from nixherd.base.terminal import foreseen, worded
from nixherd.deploy.machine import ANSWER_DEADLINE, Asked, Machine
from nixherd.deploy.options import Goal
from nixherd.deploy.protocol import GATE, PROTOCOL, Kind, Standing, Unclear, parse, part
from nixherd.fleet.models import Access
from nixherd.fleet.revisions import noted_of, of_running
from nixherd.nix.commands import is_store_path, revision_of
from nixherd.ssh.login_shell import JOBS

PROFILE = "/nix/var/nix/profiles/system"
_AGE = re.compile(r"[1-9][0-9]{0,4}d", re.ASCII)
# What takes effect with a boot alone.
BOOTED_PARTS = ("kernel", "initrd", "kernel-modules", "systemd")
PENDING = "system"  # in `reboot_for`: the next boot brings another system than the one that runs
LEADS = f"""
say() {{ name=$1; shift; printf '%s=%s\\n' "$name" "$*"; }}
names= paths= current=
newline='
'
add() {{ [ ! -e "$2" ] || {{ names="$names $1"; paths="$paths $2"; }}; }}
add current /run/current-system; add booted /run/booted-system; add profile {PROFILE}
for part in {" ".join(BOOTED_PARTS)}; do
    add "part.$part" "/run/booted-system/$part"; add "next.$part" "{PROFILE}/$part"
done
found=$(readlink -f $paths)
for name in $names; do
    path=${{found%%"$newline"*}} found=${{found#*"$newline"}}
    say "$name" "$path"
    [ "$name" != current ] || current=$path
done
[ /run/current-system -ef {PROFILE} ] || [ ! -e {PROFILE} ] ||
    say kept "$(readlink -f {PROFILE}-*-link | grep -cxF "$current")"
"""
"""prints what runs ($current), what was booted and what boots next, and of the latter two what a boot alone brings"""
NOT_NOW = "{}; nothing is changed while that is so there"
REVISION = (
    part("revisions.sh")
    + r"""
noted_of "$current"
echo "noted=$noted"
version= file=/run/current-system/sw/bin/nixos-version
if [ -r $file ] && IFS= read -r line <$file && [ "${line#"#!"}" != "$line" ]; then
    while IFS= read -r line; do
        case $line in *[\\\`\$]*) ;; '{'*'"nixosVersion":'*'}') version=$line && break ;; esac
    done <$file
fi
[ -n "$version" ] || version=$(nixos-version --json 2>/dev/null)
echo "version=$version"
"""
)
"""prints of which revision the system at $current is, with $kind set: by the machine's note of that very path, and by
its own word, which is read out of the program that prints it: to start that takes longer than all the rest"""
HOME_PROFILE = """
profile="${XDG_STATE_HOME:-$HOME/.local/state}/nix/profiles/home-manager"
[ -e "$profile" ] || profile="/nix/var/nix/profiles/per-user/$(id -un)/home-manager"
"""
"""where Home Manager keeps its generations, newer and older"""


@dataclass(frozen=True)
class Running:
    """What runs on a machine, or what a home is; None where the machine has no such thing.

    `profile` is what the next boot brings, `booted` what the last one brought. `revision` is the fleet's that `current`
    is of, `configuration_revision` the option that is a part of the system. `failed` are units; `aside` those of them
    that an unprivileged user or a clock can make fail, `unwell` those of the others that did not fail when a
    deployment was kept last. `at_work` are activations. `hold` is why whoever looks after it wants it left alone.
    `parts` are the booted system's that only a boot changes, `reboot_for` those that the next boot changes, with
    `system` where it was left to the next boot. `sudo`: `root`, `free`, `asks` or `none`.
    """

    current: str | None
    profile: str | None
    hostname: str
    boot_id: str
    booted: str | None = None
    revision: str | None = None
    configuration_revision: str | None = None
    failed: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    unwell: tuple[str, ...] = ()
    at_work: tuple[str, ...] = ()
    init: str | None = None
    inhibitors: str | None = None
    hold: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    reboot_for: tuple[str, ...] = ()
    sudo: str = "root"
    protocol: int = PROTOCOL


def ask_running(machine: Asked, kind: Kind) -> Running:
    """Ask a machine what runs on it. FleetError when it does not say."""
    if machine.access is Access.TRIGGER:
        raise FleetError(f"{machine.id}: it can be triggered, not asked")
    if machine.access is Access.PUSH_CLOSURE:
        done = machine.run_forced(f"{GATE} last")
        if done.status != 0:
            raise failure(f"{machine.id}: it does not say how it is", done.stderr.strip() or done.stdout)
        return _of_standing(parse(done.stdout))
    script = system_script(machine.become) if kind is Kind.SYSTEM else home_script()
    done = machine.run(script, deadline=ANSWER_DEADLINE)
    lines = done.stdout.splitlines()
    if done.status != 0 or not lines:
        words = f" ({reason(done.stderr)})" if done.stderr.strip() else ""
        raise FleetError(f"{machine.id}: it did not say what runs on it{words}; look at it and run this again")
    return parse_running(kind, lines)


def try_running(machine: Machine, kind: Kind, *, reconnect: bool = False) -> Running | FleetError:
    """What runs on a machine that may not answer, or why that is not known. Raises what is a fault of ours."""
    try:
        if reconnect:
            machine.reconnect()
        return ask_running(machine, kind)
    except FAILURES as error:
        foreseen(error, f"{machine.id}: asking what runs on it")
        return worded(error, machine.id)


def require_root(machine: Machine, running: Running) -> None:
    """NotBegun where root's work cannot be done: sudo (or doas) is missing, or asks for a password that nobody
    gave."""
    if running.sudo in ("root", "free") or (running.sudo == "asks" and machine.give_password()):
        return
    raise NotBegun(f"{machine.id}: {machine.become.remedy(running.sudo, machine.user)}")


def parse_running(kind: Kind, lines: Sequence[str]) -> Running:
    """The answer to `system_script` or `home_script`. FleetError when it lacks something."""
    return parse_system(lines) if kind is Kind.SYSTEM else parse_home(lines)


def system_script(become: Become = Become.SUDO) -> str:
    """Print what runs on a NixOS machine; nothing elsewhere. As few processes as can be: some machines are small."""
    return f"""
[ -e /run/current-system ] || exit 0
kind=system
{part("units.sh")}
{LEADS}
for file in hostname random/boot_id; do read -r line <"/proc/sys/kernel/$file"; say "${{file#*/}}" "$line"; done
{REVISION}
line= file=/run/current-system/init-interface-version
[ ! -r $file ] || IFS= read -r line <$file
say init "$line"
text= line= file=/run/current-system/switch-inhibitors
[ ! -r $file ] || {{ while IFS= read -r line; do text="$text$line "; done <$file; text=$text$line; }}
say inhibitors "$text"
if not_now; then say hold "$line"; fi
look_at_units
say failed $failing
if [ -n "$failing" ]; then
say aside $(echo "$failing" | that_do_not)
say unwell $(echo "$failing" | unseen | that_count)
fi
[ -n "$at_work" ] || [ ! -e $switch_lock ] || at_work=$(switching)
say at_work $at_work
{become.state("say sudo")}
"""


def parse_system(lines: Sequence[str]) -> Running:
    needed, optional = ("current", "hostname", "boot_id", "sudo"), ("booted", "profile", "init", "inhibitors", "hold")
    values = values_of(lines, *needed)
    known: dict[str, Any] = {name: values.get(name) or None for name in (*needed, *optional)}
    known |= {name: tuple(sorted(values.get(name, "").split())) for name in ("failed", "aside", "unwell", "at_work")}
    version = values.get("version", "")
    return Running(
        **known,
        revision=of_running(values["current"], values.get("noted"), version),
        configuration_revision=revision_of(version),
        parts={name: path for name, path in below("part.", values).items() if path},
        reboot_for=reboot_for(values),
    )


def reboot_for(values: Mapping[str, str]) -> tuple[str, ...]:
    """Why the machine needs a reboot, from what `LEADS` printed.

    A system that only runs for a test, and was never kept, needs none.
    """
    parts = [name for name in sorted(BOOTED_PARTS) if _differs(values, name)]
    kept = values.get("kept", "0")
    is_pending = values.get("profile") not in (None, "", values["current"]) and re.fullmatch(r"[1-9]\d*", kept)
    return (*parts, PENDING) if is_pending else tuple(parts)


def _differs(values: Mapping[str, str], name: str) -> bool:
    """Whether the next boot brings another part than runs; one that only one side has says nothing."""
    booted, following = values.get(f"part.{name}"), values.get(f"next.{name}")
    return bool(booted and following and booted != following)


def home_script() -> str:
    """Print what the home of the user who asks is."""
    return f"""{HOME_PROFILE}
echo "current=$(readlink -e "$profile")"
kind=home
{part("revisions.sh")}
noted_of "$(readlink -e "$profile")"
echo "revision=$noted"
echo "user=$(id -un)"
echo "hostname=$(cat /proc/sys/kernel/hostname)"
echo "boot_id=$(cat /proc/sys/kernel/random/boot_id)"
"""


def parse_home(lines: Sequence[str]) -> Running:
    values = values_of(lines, "current", "revision", "user", "hostname", "boot_id", whose="home", may_be_empty=True)
    current = values["current"] or None
    revision = noted_of(current, values["revision"])
    return Running(current, current, values["hostname"], values["boot_id"], revision=revision)


_OF_STANDING = (
    *("current", "profile", "hostname", "boot_id", "revision", "configuration_revision"),
    *("init", "inhibitors", "protocol"),
)


def _of_standing(standing: Standing) -> Running:
    """What a machine that takes forced commands alone says: less than a shell does."""
    if standing.current is None or standing.hostname is None or standing.boot_id is None:
        raise FleetError("the machine's program did not say what runs there")
    same = {name: getattr(standing, name) for name in _OF_STANDING}
    return Running(**same, unwell=_listed(standing.unwell), at_work=_listed(standing.at_work))


def _listed(units: str | None) -> tuple[str, ...]:
    return tuple(units.split(", ")) if units else ()


_TEXTS = ("id", "variant", "boot_id", "hostname", "current_system", "booted_system", "root", "mnt", "mark")


class MachineState(TypedDict):
    """Every value is None where the machine does not have it."""

    id: str | None
    """ID of /etc/os-release: `nixos`, `debian`, …"""
    variant: str | None
    """VARIANT_ID of /etc/os-release: `installer` in a NixOS installer"""
    boot_id: str | None
    hostname: str | None
    current_system: str | None
    booted_system: str | None
    revision: str | None
    """the fleet's that the running system is of, by the machine's note, else by the system's own word"""
    root: str | None
    """the source of the file system at /"""
    mnt: str | None
    """the source of the file system at /mnt"""
    mark: str | None
    """what our pipeline wrote into the installer that it booted"""
    macs: list[str]
    """of its network interfaces, in lower case; loopback's is left out"""
    jobs: dict[str, str]
    """by name of a job: its key and exit status"""


def machine_script() -> str:
    """Print it; nothing has to be installed there for that."""
    return f"""
say() {{ printf '%s=%s\\n' "$1" "$2"; }}
if [ -r /etc/os-release ]; then . /etc/os-release; fi
say id "${{ID:-}}"; say variant "${{VARIANT_ID:-}}"
say boot_id "$(cat /proc/sys/kernel/random/boot_id)"
say hostname "$(cat /proc/sys/kernel/hostname)"
say current_system "$(readlink -e /run/current-system)"
say booted_system "$(readlink -e /run/booted-system)"
kind=system
{part("revisions.sh")}
noted_of "$(readlink -e /run/current-system)"
say noted "$noted"; say version "$(nixos-version --json 2>/dev/null)"
say root "$(findmnt -no SOURCE / 2>/dev/null)"
say mnt "$(findmnt -no SOURCE /mnt 2>/dev/null)"
say macs "$(cat /sys/class/net/*/address 2>/dev/null | tr '\\n' ' ')"
say mark "$(cat {JOBS}/mark 2>/dev/null)"
for done in {JOBS}/*.done; do
  [ ! -r "$done" ] || say "job.$(basename "$done" .done)" "$(cat "$done")"
done
true"""


def parse_machine(lines: Sequence[str]) -> MachineState:
    """The answer to `machine_script`. FleetError when it lacks something."""
    values = values_of(lines, "macs", *_TEXTS, "noted", "version", may_be_empty=True)
    texts = {name: values[name] or None for name in _TEXTS}
    revision = of_running(texts["current_system"], values["noted"], values["version"])
    macs = [mac.lower() for mac in values["macs"].split() if mac.strip("0:")]
    return cast(MachineState, {**texts, "revision": revision, "macs": macs, "jobs": below("job.", values)})


class Generation(TypedDict):
    """`built` is when the profile came to it, as RFC 3339; `path` a store path."""

    number: int
    path: str
    built: str
    current: bool


def chosen(generations: list[Generation], number: int | None) -> Generation:
    """The generation of this number, or the one before the current. FleetError when there is none."""
    if not generations:
        raise FleetError("the machine names no generation: it keeps none, or was not asked; look at it")
    current = next((each["number"] for each in generations if each["current"]), 0)
    if number is None:
        earlier = [each for each in generations if each["number"] < current]
        if not earlier:
            raise FleetError(f"no generation precedes the current one, {current}")
        return earlier[-1]
    for each in generations:
        if each["number"] == number:
            return each
    numbers = ", ".join(str(each["number"]) for each in generations)
    raise FleetError(f"generation {number} does not exist; there are {numbers}")


def days_of(text: str) -> int:
    """The number of days in a text such as `30d`. ValueError for anything else."""
    if not _AGE.fullmatch(text):
        raise ValueError(f"older_than={text} is not a number of days; write one like 30d")
    return int(text[:-1])


def expired(generations: Iterable[Generation], days: int, now: datetime) -> list[Generation]:
    """Those that `nix-collect-garbage --delete-older-than DAYSd` deletes of a profile, oldest first.

    Beside the current one, that keeps the one which the profile led to so many days ago.
    """
    since = now - timedelta(days=days)
    older = sorted(
        (each for each in generations if datetime.fromisoformat(each["built"]) < since), key=lambda each: each["number"]
    )
    return [each for each in older[:-1] if not each["current"]]


def has_it(running: Running, system: str, goal: Goal, may_run: Collection[str] = ()) -> bool:
    """Whether the machine has come to a system already, as far as this goal goes; one of `may_run` if given."""
    runs, boots = running.current in (may_run or (system,)), running.profile == system
    return {Goal.SWITCH: runs and boots, Goal.TEST: runs, Goal.BOOT: boots}.get(goal, False)


def specialised(machine: Machine, toplevel: str, specialisation: str) -> str | None:
    """The system of one of its specialisations on the machine, None where it has none of this name.

    Unclear where the machine cannot say.
    """
    path = shlex.quote(f"{toplevel}/specialisation/{specialisation}")
    done = machine.run(f"[ ! -e {path} ] || readlink -e {path}", deadline=ANSWER_DEADLINE)
    if done.status != 0:
        what = f"{machine.id}: looking for its specialisation {specialisation} failed"
        raise failure(what, done.stderr.strip() or done.stdout, kind=Unclear)
    return done.stdout.strip() or None


def require_store_path(name: str, value: object) -> str:
    """The value of this argument. Usage when it is not a store path."""
    if not isinstance(value, str) or not is_store_path(value):
        raise Usage(f"{name}={value} is not a store path")
    return value

"""What became of a deployment, host by host: made from its journal alone, for people and for CI."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from nixherd.base.exit_codes import Exit, worst
from nixherd.nix.log import shown


class Outcome(StrEnum):
    """What became of one host, and with which status a run ends that has no worse host."""

    exit: Exit

    def __new__(cls, word: str, exit: Exit = Exit.DONE) -> "Outcome":
        outcome = str.__new__(cls, word)
        outcome._value_, outcome.exit = word, exit
        return outcome

    UNCHANGED = "unchanged", Exit.DONE
    UNCHANGED_NOT_WELL = "unchanged, not well", Exit.FAILED
    REVISION_ONLY = "revision only", Exit.DONE
    PLANNED = "planned", Exit.DONE
    DEPLOYED = "deployed", Exit.DONE
    DEPLOYED_NOT_WELL = "deployed, not well", Exit.FAILED
    PENDING_REBOOT = "pending reboot", Exit.DONE
    NEEDS_BOOT = "needs a boot", Exit.REMOTE
    REBOOTED = "rebooted", Exit.DONE
    LISTED = "left to its owner", Exit.DONE
    ROLLED_BACK = "rolled back", Exit.FAILED
    FAILED = "failed", Exit.REMOTE
    UNREACHABLE = "unreachable", Exit.REMOTE
    HELD = "held", Exit.FAILED
    UNKNOWN = "unknown", Exit.UNKNOWN


# Stages after which a host of which nothing more was noted may run one system or the other.
UNDECIDED = ("activate", "prove", "keep", "roll back", "reboot")


@dataclass(frozen=True)
class HostReport:
    """One host. `stage` is the last that it came to; `found` all that was noted of it: old, new, diff, log, …"""

    host: str
    outcome: Outcome
    stage: str | None = None
    why: str | None = None
    seconds: float | None = None
    exit: Exit = Exit.DONE
    found: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.host}: {self.outcome}{f': {self.why}' if self.why else ''}"


@dataclass(frozen=True)
class Report:
    """A whole run. `settings` are those of the run, and what it says at its end."""

    settings: Mapping[str, Any]
    hosts: tuple[HostReport, ...]
    why: str | None = None

    @property
    def exit(self) -> Exit:
        """The run's own failure, where it has one before any host is known; else the hosts' common status."""
        if not self.hosts:
            return Exit(self.settings.get("exit", Exit.FAILED))
        return worst(each.exit for each in self.hosts)

    @property
    def summary(self) -> str:
        """`3 deployed, 1 rolled back`."""
        counts = Counter(each.outcome for each in self.hosts)
        return ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome]) or "no host"

    def to_json(self) -> dict[str, Any]:
        """The one document."""
        rows = [{**asdict(each), "exit": int(each.exit), "outcome": str(each.outcome)} for each in self.hosts]
        for row in rows:
            row |= row.pop("found")
        return {**self.settings, "summary": self.summary, "exit": int(self.exit), "why": self.why, "hosts": rows}


def report(entries: Iterable[Mapping[str, Any]]) -> Report:
    """From the journal of a run that is over, however it ended."""
    settings: dict[str, Any] = {}
    hosts: dict[str, dict[str, Any]] = {}
    hosts_of: dict[str, set[str]] = {}
    why = None
    for entry in entries:
        rest = {key: value for key, value in entry.items() if key not in ("event", "host", "time")}
        host = entry.get("host")
        match entry["event"]:
            case "run":
                settings |= rest
                for each in rest.get("hosts", ()):
                    hosts.setdefault(each, {})
            case "begin" if host:
                hosts[host] = _anew(hosts.get(host, {}))
            case "stage" if host:
                hosts.setdefault(host, {}).update(rest, since=entry["time"])
                hosts[host].setdefault("began", entry["time"])
            case "found" if host:
                hosts.setdefault(host, {}).setdefault("found", {}).update(rest)
            case "end" if host and "outcome" not in hosts.setdefault(host, {}):  # the first of a rollout counts
                hosts[host].update(rest, ended=entry["time"])
                _keep_more(hosts[host])
            case "warning":
                hosts_of.setdefault(rest["text"], set()).update(rest["hosts"])
            case "done":
                settings |= rest
                why = rest.get("why")
    settings.pop("hosts", None)
    if hosts_of:
        shown_warnings = [shown(text, sorted(ids)) for text, ids in hosts_of.items()]
        settings["warnings"] = [*settings.get("warnings", ()), *shown_warnings]
    return Report(settings, tuple(_host(name, values) for name, values in hosts.items()), why)


# Noted of a host, whatever rollout it is in then; all else was seen in one rollout and says nothing of another.
_OF_THE_HOST = ("login_shell", "verified")


def _anew(values: dict[str, Any]) -> dict[str, Any]:
    """Begin another rollout of the run for a host; `before` is how the last one ended, and what was found in it."""
    ended = {name: values[name] for name in ("outcome", "why", "exit", "stage", "found") if name in values}
    before = ended if "outcome" in ended else values.get("before")
    kept = {"began": values["began"]} if "began" in values else {}
    return {**kept, "found": _of_the_host(values), "before": before}


def _of_the_host(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.get("found", {}).items() if name in _OF_THE_HOST}


def _keep_more(values: dict[str, Any]) -> None:
    """Let a rollout that found nothing to do not hide what the one before it did to the host."""
    before = values.get("before") or {}
    nothing = (Outcome.UNCHANGED, Outcome.LISTED)
    if values["outcome"] in nothing and before.get("outcome", Outcome.PLANNED) not in (*nothing, Outcome.PLANNED):
        values.update(before, found={**before.get("found", {}), **_of_the_host(values)})


def how_to_ask(host: str) -> str:
    """The command that says what a machine has decided."""
    return f"`pyinfra inventory.py --limit {host} fact facts.nixos.LastDeployment _sudo=True`"


def _host(name: str, values: Mapping[str, Any]) -> HostReport:
    stage, found = values.get("stage"), values.get("found", {})
    if "outcome" in values:
        outcome, why = Outcome(values["outcome"]), values.get("why")
    elif stage in UNDECIDED:
        outcome = Outcome.UNKNOWN
        decides = "the machine decides by itself" if "engine" not in found else "nixos-rebuild never goes back"
        why = f"the run ended while it was at {stage}; {decides}, see {how_to_ask(name)}"
    else:
        outcome, why = Outcome.FAILED, f"the run ended before it was deployed to{f' (at {stage})' if stage else ''}"
    began, ended = values.get("began"), values.get("ended")
    seconds = round(ended - began, 1) if began and ended else None
    return HostReport(name, outcome, stage, why, seconds, Exit(values.get("exit", outcome.exit)), found)

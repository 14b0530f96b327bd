"""docs/machines.md: what the fleet's files say of its hosts and guests, and below it what was seen of them.

The first part is what an enrolment writes, from the same template. In the second nothing changes while nothing does: no
ages, and no revision that a commit of this file would change.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nixherd.base.terminal import one_line
from nixherd.fleet.models import Fleet
from nixherd.fleet.revisions import shown
from nixherd.trust.enrol import SEEN, overview_of, render_overview

_COLUMNS = (
    "host", "state", "differs", "not known", "runs", "generation", "kernel", "failed units", "updates",
    "last deployment",
)  # fmt: skip
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&#!$@]|(?<=:)/(?=/)|(?<=www)\.)", re.IGNORECASE)
"""what Markdown would read as more than text, links without brackets among it"""


def machines_md(
    fleet: Fleet, document: Mapping[str, Any], old: bytes | None, name: str, template: str | None = None
) -> bytes:
    """The file with both parts as they are now, and what people wrote around them. FleetError, naming the file, when
    only one of a part's markers is there; `template` as for `render_overview`."""
    content = overview_of(old, render_overview(fleet, template), name)
    return overview_of(content, seen(document), name, SEEN)


def seen(document: Mapping[str, Any]) -> str:
    """What was seen of the hosts, as a table in Markdown."""
    rows = sorted(document["hosts"], key=lambda host: str(host["host"]))
    lines = [_row(_COLUMNS), _row("---" for _ in _COLUMNS), *(_row(map(escaped, _cells(host))) for host in rows)]
    kinds = [str(each["kind"]) for each in document["differences"]]
    fleet = f"\nOf the fleet itself differs: {escaped(_joined(kinds))}.\n" if kinds else ""
    return "\n".join(["## What runs where", "", *lines, fleet])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(host: Mapping[str, Any]) -> Iterator[str]:
    failed, deployment = host["units"]["failed"], host["deployment"] or {}
    yield host["host"]
    since = f" since {host['reach']['since'][:10]}" if host["state"] == "unreachable" and host["reach"]["since"] else ""
    yield f"{host['state']}{since}"
    yield _joined(str(each["kind"]) for each in host["differences"])
    yield _joined(sorted(host["unknown"]))
    yield shown(host["revision"]["running"]) if host["revision"]["running"] else ""
    yield str(host["system"]["generation"] or "")
    yield host["reboot"]["kernel"] or ""
    yield "" if failed is None else _joined(failed) or "none"
    yield str(host["update"]["mode"] or "")
    day, who = (deployment.get("when") or "")[:10], deployment.get("who")
    words = [day, f"by {who}" if who else "", deployment.get("outcome") or ""]
    yield " ".join(filter(None, words))


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def escaped(text: str) -> str:
    """Others' words, in one line of Markdown that says nothing but these."""
    return _SPECIAL.sub(r"\\\1", " ".join(one_line(text).split()))

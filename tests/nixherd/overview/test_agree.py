"""JSON, terminal, page, metrics, drift and docs/machines.md never disagree: of any fleet, what each says is read back.

Of each host its state, the kinds in which it differs, and the sections that are not known.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, settings
from markdown_it import MarkdownIt
from prometheus_client.parser import text_string_to_metric_families

from nixherd.base.terminal import one_line, visible
from nixherd.overview.document import Overview, State
from nixherd.overview.machines_md import seen
from nixherd.overview.mends import plan_of
from nixherd.overview.metrics import exposition
from nixherd.overview.page.render import Pages
from nixherd.overview.reading import read_overview
from tests.overviews import overviews


@dataclass(frozen=True)
class Said:
    """What an output says of one host; None where it does not speak of that."""

    state: str | None
    differs: frozenset[str]
    unknown: frozenset[str]
    answered: bool | None = None


Read = Callable[[Overview], Mapping[str, Said]]


def shown(name: str) -> str:
    """A name as it is in a line."""
    return " ".join(one_line(name).split())


def by_json(overview: Overview) -> dict[str, Said]:
    """As a program reads what `nixherd status --json` writes."""
    document = json.loads(json.dumps(overview.to_json()))
    return {
        shown(host["host"]): Said(
            host["state"],
            frozenset(each["kind"] for each in host["differences"]),
            frozenset(host["unknown"]),
            host["reach"]["answered"],
        )
        for host in document["hosts"]
    }


def by_file(overview: Overview) -> dict[str, Said]:
    """As --from reads it."""
    return by_json(read_overview(json.dumps(overview.to_json()), "a.json"))


def by_metrics(overview: Overview) -> dict[str, Said]:
    samples = [
        (sample.name.removeprefix("nixherd_host_"), sample.labels, sample.value)
        for family in text_string_to_metric_families(exposition(overview.to_json()).decode())
        for sample in family.samples
    ]

    def labels(host: str, name: str, label: str) -> frozenset[str]:
        return frozenset(of[label] for each, of, value in samples if (each, of.get("host"), value) == (name, host, 1))

    found = {}
    for host in [of["host"] for name, of, _ in samples if name == "info"]:
        [state] = labels(host, "state", "state")
        reachable = [bool(value) for name, of, value in samples if (name, of.get("host")) == ("reachable", host)]
        answered = reachable[0] if reachable else None
        said = Said(state, labels(host, "differs", "kind"), labels(host, "unknown", "section"), answered)
        found[shown(host)] = said
    return found


def by_drift(overview: Overview) -> dict[str, Said]:
    plan = json.loads(json.dumps(plan_of(overview.to_json()).to_json()))
    differs = {host.host: set[str]() for host in overview.hosts}
    unknown = {host.host: set[str]() for host in overview.hosts}
    for row in plan["mends"]:
        differs.setdefault(row["host"], set()).update(each["kind"] for each in row["differences"])
    for row in plan["by_hand"]:
        differs.setdefault(row["host"], set()).add(row["kind"])
    for row in plan["not_judged"]:
        unknown.setdefault(row["host"], set()).update(row["sections"])
    return {shown(host): Said(None, frozenset(differs[host]), frozenset(unknown[host])) for host in unknown if host}


def by_markdown(overview: Overview) -> dict[str, Said]:
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(seen(overview.to_json()))
    words = ["".join(part.content for part in each.children or ()) for each in tokens if each.type == "inline"]
    cells = [words[1:][at : at + 4] for at in range(0, 10 * (len(overview.hosts) + 1), 10)][1:]
    return {
        row[0]: Said(
            row[1].partition(" ")[0], frozenset(row[2].split(", ")) - {""}, frozenset(row[3].split(", ")) - {""}
        )
        for row in cells
    }


def by_terminal(overview: Overview) -> dict[str, Said]:
    """The columns that `nixherd status` shows."""
    status: Any = pytest.importorskip("nixherd.cli.status")
    rows = status.rows_of(overview, ("host", "state", "differs", "unknown"), datetime.now(UTC))
    return {
        shown(row["host"]): Said(row["state"], frozenset(row["differs"]), frozenset(row["unknown"])) for row in rows
    }


class HostPage(HTMLParser):
    """What a host's page says: its heading, its state, and the items of its lists."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.name = self.state = ""
        self.differs, self.unknown = set[str](), set[str]()
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._in = "name" if tag == "h1" else "state" if (values.get("class") or "").startswith("state ") else self._in
        self.differs |= {values["data-kind"] or ""} if "data-kind" in values else set()
        self.unknown |= {values["data-unknown"] or ""} if "data-unknown" in values else set()

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        self.name += data if self._in == "name" else ""
        self.state += data if self._in == "state" else ""


def by_page(overview: Overview) -> dict[str, Said]:
    """The pages of hosts, and the state that the fleet's page has of each."""
    document = json.loads(json.dumps(overview.to_json()))
    pages = Pages(document, {})
    rows = re.findall(r'<tr data-host="([^"]*)" data-state="([a-z]+)"', pages.index())
    states = {unescape(name): state for name, state in rows}
    found = {}
    for host in document["hosts"]:
        page = HostPage(pages.host(host))
        state = page.state.split()[-1]
        assert states[visible(host["host"])] == state
        found[shown(page.name)] = Said(state, frozenset(page.differs), frozenset(page.unknown))
    return found


def expected(overview: Overview, said: Mapping[str, Said]) -> Iterator[tuple[str, Said]]:
    """What the document has of each host, as far as this output speaks of it."""
    for host in overview.hosts:
        name = shown(host.host)
        state = None if said[name].state is None else str(host.state)
        differs = frozenset(str(each.kind) for each in host.differences)
        unknown = frozenset(host.unknown)
        if state is None and host.reach.answered is False:  # drift says so among what is not judged
            unknown |= {"reach"}
        yield name, Said(state, differs, unknown, None if said[name].answered is None else host.reach.answered)


# every output of the document has its reader here
READERS: Mapping[str, Read] = {
    "json": by_json,
    "file": by_file,
    "metrics": by_metrics,
    "drift": by_drift,
    "markdown": by_markdown,
    "terminal": by_terminal,
    "page": by_page,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@given(overview=overviews(most=8))
@settings(deadline=None)
def test_each_says_what_the_document_has(read: Read, overview: Overview) -> None:
    said = read(overview)
    assert said.keys() == {shown(host.host) for host in overview.hosts}
    assert said == dict(expected(overview, said))


@given(overview=overviews(most=5))
@settings(deadline=None)
def test_the_fleet_as_a_whole(overview: Overview) -> None:
    document, samples = overview.to_json(), dict[str, dict[str, float]]()
    for family in text_string_to_metric_families(exposition(document).decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[next(iter(sample.labels.values()), "")] = sample.value
    assert samples["nixherd_hosts"] == {str(state): document["summary"][state] for state in State}
    kinds = {str(each.kind) for each in overview.differences}
    assert samples.get("nixherd_fleet_differs", {}).keys() == kinds
    plan = plan_of(document)
    found = {each.kind for work in plan.mends if work.host is None for each in work.differences}
    assert found | {each.kind for each in plan.by_hand if each.host is None} == kinds
    reachable = {"answered": {1.0}, "unreachable": {0.0}, "refused": {0.0}}.get(overview.hypervisor.state, set())
    assert {*samples.get("nixherd_hypervisor_reachable", {}).values()} == reachable
    silent = any(each.host is None for each in plan.not_judged)
    assert silent == (overview.hypervisor.state in ("unreachable", "refused"))


def test_a_disagreement_would_be_found() -> None:
    """Each reader, with an output that says another thing of one host."""
    from tests.overviews import host, overview

    right = overview()
    wrong = overview(hosts=(host(state=State.UNKNOWN, unknown={"units": "x"}),))
    for name, read in READERS.items():
        if name == "terminal" and not _is_there("nixherd.cli.status"):
            continue
        said = read(wrong)
        assert said != dict(expected(right, said)), name


def _is_there(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def test_labels_are_visible_names() -> None:
    assert shown(visible("a\x1b")) == shown("a\x1b"), "as metrics and lines show it"

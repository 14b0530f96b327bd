"""The pages: what the document has, escaped, whole in themselves; and files that are ours alone."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from nixherd.base.errors import FleetError
from nixherd.overview.document import Overview, State
from nixherd.overview.page import charts
from nixherd.overview.page.render import INDEX, Pages, name_of, write
from tests.overviews import host, overview, overviews


class Reader(HTMLParser):
    """Which elements and attributes a page has, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements = list[tuple[str, dict[str, str | None]]]()
        self.text = list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def pages_of(made: Overview, histories: Mapping[str, Any] | None = None) -> Iterator[str]:
    document = json.loads(json.dumps(made.to_json()))
    pages = Pages(document, histories or {})
    yield pages.index()
    yield from (pages.host(each) for each in document["hosts"])


PLAIN = Reader(next(pages_of(overview(hosts=(host("dev"),)))))
KNOWN = {tag for tag, _ in PLAIN.elements} | {"code", "time", "br", "strong", "ul", "svg", "rect", "circle", "title"}


@given(overviews(most=4))
@settings(deadline=None)
def test_whatever_others_wrote_is_text(made: Overview) -> None:
    for text in pages_of(made):
        reader = Reader(text)
        scripts = [attributes for tag, attributes in reader.elements if tag == "script"]
        assert scripts == [{}]
        assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
        assert {tag for tag, _ in reader.elements} <= KNOWN | {"dl", "dt", "dd", "code", "line", "text"}


@given(overviews(most=4))
@settings(deadline=None)
def test_no_page_asks_anybody_for_anything(made: Overview) -> None:
    for text in pages_of(made):
        for tag, attributes in Reader(text).elements:
            for name in ("src", "href", "action", "data", "srcset", "poster"):
                place = attributes.get(name)
                assert place is None or re.fullmatch(r"data:,|#\w+|\.\./index\.html|hosts/[\w%.~-]+", place), (
                    tag,
                    place,
                )
        assert "url(" not in text
        assert "@import" not in text


def test_what_is_not_known_is_the_word_and_its_reason() -> None:
    made = overview(hosts=(host(state=State.UNKNOWN, unknown={"units": "systemctl did not say"}),))
    _, page = pages_of(replace(made, hosts=(replace(made.hosts[0], units=replace(made.hosts[0].units, failed=None)),)))
    assert "unknown: systemctl did not say" in " ".join(Reader(page).text)


def line(began: str, after: str = "b", revision: str | None = "1" * 40, **values: Any) -> dict[str, Any]:
    return {"began": began, "after": after, "revision": revision, "seconds": 2.0, "changed": True, "exit": 0, **values}


END = datetime(2026, 12, 1, tzinfo=UTC)


def test_a_strip_goes_from_one_deployment_to_the_next() -> None:
    days = (("01", "1" * 40), ("16", "2" * 40), ("30", None))
    history = [line(f"2026-11-{day}T00:00:00Z", revision=revision) for day, revision in days]
    span = charts.span_of([history], END)
    assert span is not None
    segments = charts.strip(history, span, charts.palette([history]))
    places = [(each.x, each.x + each.width, each.colour) for each in segments]
    assert places == [(0, 500, 1), (500, 967, 2), (967, 1000, 0)]


def test_a_history_of_nonsense_is_no_picture() -> None:
    history = [line("never"), line("2036-01-01T00:00:00Z"), {"began": None}]
    assert charts.span_of([history], END) is None
    assert [week.begins for week in charts.weeks([history])] == ["2035-12-31"]


def test_durations_and_weeks() -> None:
    history = [
        line("2026-11-24T00:00:00Z"),
        line("2026-11-25T00:00:00Z", outcome="rebooted", seconds=4.0),
        line("2026-11-26T00:00:00Z", exit=4),
    ]
    span = charts.span_of([history], END)
    assert span is not None
    dots, longest = charts.durations({"dev": history}, span)
    assert ([each.y for each in dots], longest) == ([500, 1000, 500], 4.0)
    assert charts.weeks([history]) == [charts.Week("2026-11-23", 2, 1, 1)]


# Files


@pytest.fixture
def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(overview(hosts=(host("dev"), host("../../etc/passwd"))).to_json()))
    return made


def test_pages_are_written_and_those_of_hosts_that_are_gone_go(tmp_path: Path, document: dict[str, Any]) -> None:
    place = tmp_path / "pages"
    assert write(place, Pages(document, {})) == 3
    (place / "hosts/notes.html").write_text("mine")
    names = {path.name for path in (place / "hosts").iterdir()}
    assert names == {name_of("dev"), name_of("../../etc/passwd"), "notes.html"}
    document["hosts"] = document["hosts"][:1]
    assert write(place, Pages(document, {})) == 2
    assert {path.name for path in (place / "hosts").iterdir()} == {"dev.html", "notes.html"}
    assert (place / INDEX).stat().st_mode & 0o777 == 0o644
    assert not (tmp_path / "etc").exists()


def test_somebody_elses_file_and_links_stay_as_they_are(tmp_path: Path, document: dict[str, Any]) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / INDEX).write_text("mine")
    with pytest.raises(FleetError, match="was not made by nixherd"):
        write(tmp_path, Pages(document, {}))
    assert (tmp_path / INDEX).read_text() == "mine"
    (tmp_path / INDEX).unlink()
    (tmp_path / INDEX).symlink_to(mine)
    with pytest.raises(FleetError, match="is not a file"):
        write(tmp_path, Pages(document, {}))
    assert mine.read_text() == "mine"
    (tmp_path / INDEX).unlink()
    (tmp_path / "hosts").rmdir()
    (tmp_path / "hosts").symlink_to(tmp_path)
    with pytest.raises(FleetError, match="is not a directory"):
        write(tmp_path, Pages(document, {}))


def test_a_manifest_names_nothing_else_to_remove(tmp_path: Path, document: dict[str, Any]) -> None:
    write(tmp_path, Pages(document, {}))
    (tmp_path / "kept").write_text("")
    names = ["kept", "../x", "hosts/../kept", 1, "index.html", "hosts/dev.html", f"hosts/{name_of('../../etc/passwd')}"]
    (tmp_path / ".nixherd-pages.json").write_text(json.dumps(names))
    document["hosts"] = []
    write(tmp_path, Pages(document, {}))
    assert (tmp_path / "kept").exists()
    assert list((tmp_path / "hosts").iterdir()) == []


@pytest.mark.parametrize("name", ["web01", "Web01", "a/b", "..", "", "ü", "x" * 300, "a%2Fb", ".hidden", "~"])
def test_a_hosts_page_is_a_plain_file(name: str) -> None:
    file = name_of(name)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.html", file)
    assert len(file) < 120
    assert name_of(f"{name}x") != file

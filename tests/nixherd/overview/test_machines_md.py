"""docs/machines.md: two parts that are replaced, what others call things as text and nothing else, stable."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from nixherd.base.terminal import one_line
from nixherd.overview.document import Difference, HostView, Kind, State, Units
from nixherd.overview.machines_md import machines_md, seen
from nixherd.trust.enrol import OVERVIEW_BEGIN, SEEN, overview_of, render_overview, unseen
from tests.nixherd.overview.test_metrics import DOWN, WEB, document
from tests.nixherd.proxmox.fleets import FLEET
from tests.security.hostile import TEXT


def rows(text: str) -> list[list[Token]]:
    """The table's rows, as GitHub would read them; nothing but text is in any cell."""
    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(text)
    found: list[list[Token]] = []
    for before, token in itertools.pairwise(tokens):
        if token.type == "tr_open":
            found.append([])
        if before.type in ("td_open", "th_open"):
            found[-1].append(token)
    return found


def words(cells: list[Token]) -> list[str]:
    for cell in cells:
        assert {each.type for each in cell.children or ()} <= {"text", "text_special"}, cell.content
    return ["".join(each.content for each in cell.children or ()) for cell in cells]


def cells(*hosts: HostView, **more: Any) -> list[list[str]]:
    return [words(row) for row in rows(seen(document(*hosts, **more)))]


def test_a_row_for_each_host() -> None:
    head, down, web = cells(WEB, DOWN)
    assert head == ["host", "state", "differs", "not known", "runs", "generation", "kernel", "failed units", "updates",
                    "last deployment"]  # fmt: skip
    ran, deployed = "a" * 12, "2026-01-30 by ops@desk deployed"
    failed = "nginx.service, a.service"
    assert web == ["web01", "differs", "system, units", "", web[4], "41", "6.12.1", failed, "pushed", deployed]
    assert ran.startswith(web[4])
    assert down[:4] == ["down", "unreachable since 2026-01-30", "", "system"]
    assert "Of the fleet itself differs: recipients." in seen(document(differences=(Difference(Kind.RECIPIENTS, "a"),)))


def test_nothing_changes_while_nothing_does() -> None:
    later = {**document(WEB, DOWN), "taken": "2027-01-01T00:00:00Z", "revision": "f" * 40, "seconds": 9.0}
    for host in later["hosts"]:
        host["reach"] |= {"at": "2027-01-01T00:00:00Z", "age": 0}
        host["revision"] |= {"desired": "f" * 40, "behind": 9}
        host["reboot"] |= {"uptime": 1}
    assert seen(later) == seen({**document(DOWN, WEB)})


@pytest.mark.parametrize(
    "name",
    [
        "a | b", "<script>alert(1)</script>", "[a](javascript:alert(1))", "![a](http://x/)", "`a`", "**a** _b_ ~~c~~",
        "https://evil.example/", "www.evil.example", "a\nb | c\n\n# d", "\\| a", "&lt;b&gt;", "<!-- nixherd: end -->",
        SEEN[1], "$x$", "@all", TEXT,
    ],
)  # fmt: skip
def test_what_others_call_things_is_text(name: str) -> None:
    host = replace(WEB, host=name, units=Units((name,)), unknown={name: "x"})
    [_, row] = cells(host)
    shown = " ".join(one_line(name).split())
    assert (row[0], row[3], row[7]) == (shown, shown, shown)
    text = seen(document(host))
    assert SEEN[1] not in text
    linked = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert "<script" not in linked
    assert "<a " not in linked


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_one_cell(name: str) -> None:
    [_, row] = cells(replace(WEB, host=name))
    assert (len(row), row[0]) == (10, " ".join(one_line(name).split()))


def test_both_parts_are_replaced_and_the_rest_stays() -> None:
    enrolled = overview_of(b"# Ours\n", render_overview(FLEET), "docs/machines.md")
    made = machines_md(FLEET, document(WEB), enrolled, "docs/machines.md")
    assert made.startswith(enrolled), "the first part is what an enrolment writes"
    assert machines_md(FLEET, document(WEB), made, "docs/machines.md") == made
    again = machines_md(FLEET, document(DOWN), made + b"below\n", "docs/machines.md")
    assert again.endswith(b"below\n")
    assert b"| down |" in again
    assert b"| web01 |" not in again
    assert again.count(OVERVIEW_BEGIN.encode()) == 1


def test_an_enrolment_leaves_what_was_seen_and_a_retirement_takes_its_row() -> None:
    made = machines_md(FLEET, document(WEB, DOWN), None, "docs/machines.md")
    enrolled = overview_of(made, render_overview(replace(FLEET, vms={})), "docs/machines.md")
    assert made.partition(SEEN[0].encode())[2] == enrolled.partition(SEEN[0].encode())[2]
    gone = unseen(made, "web01")
    assert b"| web01 |" not in gone
    assert b"| down |" in gone
    odd = machines_md(FLEET, document(replace(WEB, host="a_b"), DOWN), None, "docs/machines.md")
    assert unseen(odd, "a_b").count(b"\n") == odd.count(b"\n") - 1
    assert unseen(b"| web01 | mine |\n", "web01") == b"| web01 | mine |\n"


def test_states_are_all_there() -> None:
    assert [cells(replace(WEB, state=state, reach=WEB.reach))[1][1] for state in State] == [str(each) for each in State]

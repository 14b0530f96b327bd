"""Tables on terminals of any width: what names a thing is whole, the rest folds, and then goes."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from nixherd.cli import output
from nixherd.cli.colours import Line
from nixherd.cli.output import show_rows
from nixherd.cli.tables import Column, Kind, Table, column_of, folded, shortened

UPID = "UPID:prom:0002A2CB:00052A4E:6B03F0ED:qmclone:9002:nixherd@pve!lab:"
FINGERPRINT = ":".join(["A7"] * 32)
NAMES = ("vmid", "upid", "name", "host", "file", "volid", "storage", "fingerprint")
OTHERS = ("node", "status", "recipients", "tags", "notes", "description", "memory", "uptime", "readonly", "started")
CELL = st.text(st.sampled_from("abzö日本ß-.:/é e\u0301,|x1"), min_size=1, max_size=60).map(
    lambda text: " ".join(text.split()) or "-"
)
WHOLE = st.one_of(st.sampled_from([UPID, FINGERPRINT, "local:backup/vzdump-qemu-110.vma.zst", "müller-日本"]), CELL)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=3))
    others = draw(st.lists(st.sampled_from(OTHERS), unique=True, max_size=8))
    columns = draw(st.permutations([*names, *others]))
    cells = {name: WHOLE if column_of(name).kind is Kind.IDENTIFIER else CELL for name in columns}
    rows = draw(st.lists(st.fixed_dictionaries(cells), min_size=1, max_size=4))
    return Table(columns, rows, frozenset(draw(st.sets(st.sampled_from(columns)))))


@given(tables(), st.integers(1, 200))
def test_a_name_is_never_cut(table: Table, width: int) -> None:
    fitted = table.fitted(width)
    lines = fitted.lines()
    for name in table.columns:
        if column_of(name).kind is not Kind.IDENTIFIER:
            continue
        assert name in fitted.widths or column_of(name).priority > 0
        for row in table.rows:
            assert name not in fitted.widths or any(row[name].strip() in line for line in lines)
    assert not fitted.beside or all(cell_len(line) <= width for line in lines)
    assert set(fitted.widths) | set(fitted.left_out) == set(table.columns)


@given(tables(), st.integers(1, 200))
def test_what_is_shown_is_shown_whole(table: Table, width: int) -> None:
    """No character of a cell is lost, however it folds."""
    fitted = table.fitted(width)
    text = "".join(fitted.lines())
    for row in table.rows:
        for name in fitted.widths:
            assert all(text.count(each) >= 1 for each in row[name])
            whole = "".join(folded(row[name], max(fitted.widths[name], 1), column_of(name).kind))
            assert "".join(whole.split()) == "".join(row[name].split())


@given(tables(), st.integers(1, 200))
def test_more_room_shows_no_less(table: Table, width: int) -> None:
    less, more = table.fitted(width), table.fitted(width + 1)
    assert set(more.left_out) <= set(less.left_out)
    assert not less.beside or more.beside


@given(CELL, st.integers(1, 40))
def test_a_remark_is_cut_to_its_cells(text: str, width: int) -> None:
    assert cell_len(shortened(text, width)) <= width
    assert cell_len(text) > width or shortened(text, width) == text


def test_what_is_of_less_use_goes_first() -> None:
    row = {"vmid": "110", "name": "web01", "status": "running", "memory": "2.0 GiB", "uptime": "3d 4h", "tags": "a b"}
    table = Table([*row], [row])
    assert table.fitted(80).left_out == ()
    assert table.fitted(38).left_out == ("uptime",)
    assert table.fitted(24).left_out == ("memory", "uptime", "tags")
    assert table.fitted(15).lines()[0] == "vmid    110"
    assert table.fitted(None).left_out == ()


def test_names_fold_between_each_other() -> None:
    assert folded("alice,bob the builder,carol", 15, Kind.IDENTIFIERS) == ["alice,", "bob the builder,", "carol"]
    assert folded("alice | carol (2 of 2)", 14, Kind.IDENTIFIERS) == ["alice |", "carol (2 of 2)"]
    assert folded("a longer remark", 8, Kind.TEXT) == ["a longer", "remark"]


def test_one_of_which_nothing_is_known_stays() -> None:
    assert column_of("novelty") == Column(Kind.IDENTIFIER)


# on a terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    monkeypatch.setattr("nixherd.cli.colours.is_terminal", lambda stream: True)
    monkeypatch.setattr("nixherd.base.terminal.echo", lambda text, err, nl: print(text))  # click takes colours away
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return monkeypatch


ROWS: list[dict[str, Any]] = [{"started": "2026-01-01 00:00:00", "type": "qmclone", "status": "OK", "upid": UPID}]


@pytest.mark.parametrize("columns", [80, 40])
def test_upids_are_whole_on_narrow_terminals(
    columns: int, terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.setenv("COLUMNS", str(columns))
    terminal.setenv("NO_COLOR", "1")
    show_rows(ROWS, tuple(ROWS[0]), as_json=False)
    shown = capsys.readouterr().out
    assert UPID in shown
    assert "no room for started" in shown


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("NO_COLOR", "")])
def test_colours(name: str, value: str, terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With NO_COLOR or a dumb terminal there are none; an empty NO_COLOR says nothing (no-color.org)."""
    terminal.setenv(name, value)
    show_rows(ROWS, tuple(ROWS[0]), as_json=False)
    output.show({}, [Line("web01  ", "rolled back", ": \x1b[5mwhy")], as_json=False)
    shown = capsys.readouterr().out
    assert (re.search(r"\x1b\[32mOK\s*\x1b\[0m", shown) is not None) is (not value)
    assert ("\x1b[31mrolled back\x1b[0m: \\x1b[5mwhy" in shown) is (not value)
    assert ("\x1b" in shown) is (not value)

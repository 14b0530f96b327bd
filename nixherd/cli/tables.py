"""Tables that fit a terminal without cutting what names a thing: other columns fold, and then go."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """What may happen to a column's cells where there is too little room."""

    IDENTIFIER = auto()
    """nothing: it is whole, on one line, in every table"""
    IDENTIFIERS = auto()
    """folds between two of them"""
    TEXT = auto()
    """folds between words; a word that is longer than a line folds too"""
    FIGURE = auto()
    """nothing, but the column may go"""


Paint = Callable[[str | None, str, str], str]
"""gives a text of this column (None: a heading), a part of this cell's, its colour"""
KEPT = 0
GAP = "  "
_NARROW = 12  # cells: a text that is narrower is hard to read


@dataclass(frozen=True)
class Column:
    """Of the columns that may go, the one of the highest priority goes first; one that is KEPT never does."""

    kind: Kind
    priority: int = KEPT


_COLUMNS = {
    name: column
    for names, column in (
        ("vmid upid name host hostname group file volid storage mac address fingerprint", Column(Kind.IDENTIFIER)),
        ("number", Column(Kind.IDENTIFIER)),
        ("node", Column(Kind.IDENTIFIER, 2)),
        ("config", Column(Kind.IDENTIFIER, 3)),
        ("guest", Column(Kind.IDENTIFIER, 4)),
        ("id parent", Column(Kind.IDENTIFIER, 5)),
        ("user", Column(Kind.IDENTIFIER, 6)),
        ("path", Column(Kind.IDENTIFIER, 8)),
        ("addresses recipients rules hosts", Column(Kind.IDENTIFIERS)),
        ("status outcome result machine state you why differences", Column(Kind.TEXT)),
        ("mend", Column(Kind.IDENTIFIER)),
        ("command", Column(Kind.TEXT, 3)),
        ("type origin content description", Column(Kind.TEXT, 4)),
        ("notes tags", Column(Kind.TEXT, 5)),
        ("kind format", Column(Kind.TEXT, 6)),
        ("started began built made taken size readonly available rule", Column(Kind.FIGURE, 3)),
        ("current key shared active enabled protected with_memory used", Column(Kind.FIGURE, 5)),
        ("memory disk total seconds exit", Column(Kind.FIGURE, 6)),
        ("cores uptime host_count", Column(Kind.FIGURE, 7)),
    )
    for name in names.split()
}
"""by name: what a column is, wherever it stands"""


def column_of(name: str) -> Column:
    """Tell what a column is; one of which nothing is known is never cut and never goes."""
    return _COLUMNS.get(name, Column(Kind.IDENTIFIER))


@dataclass(frozen=True)
class Table:
    """Columns, by name; a row is the text of each of its cells, on one line. `right`: what stands to the right."""

    columns: Sequence[str]
    rows: Sequence[Mapping[str, str]]
    right: frozenset[str] = frozenset()

    def fitted(self, width: int | None) -> "Fitted":
        """Lay it out for a terminal of so many cells; None: nothing is folded, and nothing goes."""
        widths = {name: self._natural(name) for name in self.columns}
        if width is None or _total(widths) <= width:
            return Fitted(self, widths)
        least = {name: min(widths[name], self._least(name)) for name in self.columns}
        gone: list[str] = []
        for name in sorted(self.columns, key=lambda name: -column_of(name).priority):
            if _total(least) <= width or column_of(name).priority == KEPT:
                break
            gone.append(name)
            del least[name]
        left_out = tuple(name for name in self.columns if name in gone)
        if _total(least) > width:  # not even the identifiers fit side by side
            return Fitted(self, {name: 0 for name in self.columns if name in least}, left_out, beside=False)
        room = width - _total(least)
        shares = {name: least[name] for name in self.columns if name in least}
        while room and (short := [name for name in shares if shares[name] < widths[name]]):
            narrowest = min(short, key=lambda name: shares[name])
            shares[narrowest] += 1
            room -= 1
        return Fitted(self, shares, left_out)

    def _natural(self, name: str) -> int:
        return max((cells(name_shown(name)), *(cells(row[name]) for row in self.rows)))

    def _least(self, name: str) -> int:
        kind = column_of(name).kind
        texts = [name_shown(name), *(row[name] for row in self.rows)]
        if kind is Kind.TEXT:
            return max(cells(texts[0]), _NARROW)
        if kind is Kind.IDENTIFIERS:
            return max(cells(piece.strip()) for text in texts for piece in _pieces(text, kind))
        return self._natural(name)


@dataclass(frozen=True)
class Fitted:
    """A table with the width of each column that is shown; `beside`: the columns stand beside each other."""

    table: Table
    widths: Mapping[str, int]
    left_out: tuple[str, ...] = ()
    beside: bool = True

    def lines(self, paint: Paint | None = None) -> list[str]:
        """Return all lines; where the columns do not stand beside each other, an empty one between two rows."""
        paint = paint or (lambda column, value, text: text)
        if self.beside:
            heading = self._line({name: name_shown(name) for name in self.widths}, None, paint)
            return [heading, *(line for row in self.table.rows for line in self._row(row, paint))]
        label = max((cells(name_shown(name)) for name in self.widths), default=0)
        lines: list[str] = []
        for row in self.table.rows:
            lines += [""] if lines else []
            for name in self.widths:
                heading = paint(None, "", padded(name_shown(name), label))
                lines.append(f"{heading}{GAP}{paint(name, row[name], row[name])}")
        return lines

    def _row(self, row: Mapping[str, str], paint: Paint) -> Iterator[str]:
        folds = {name: folded(row[name], width, column_of(name).kind) for name, width in self.widths.items()}
        for number in range(max((len(lines) for lines in folds.values()), default=0)):
            texts = {name: lines[number] if number < len(lines) else "" for name, lines in folds.items()}
            yield self._line(texts, row, paint)

    def _line(self, texts: Mapping[str, str], row: Mapping[str, str] | None, paint: Paint) -> str:
        parts, last = [], list(self.widths)[-1]
        for name, width in self.widths.items():
            right = name in self.table.right
            text = texts[name] if name == last and not right else padded(texts[name], width, right=right)
            parts.append(paint(name if row else None, row[name] if row else "", text))
        return GAP.join(parts).rstrip()


def name_shown(column: str) -> str:
    return column.replace("_", " ")


def cells(text: str) -> int:
    """How many cells of a terminal a text takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    space = " " * (width - cells(text))
    return space + text if right else text + space


def shortened(text: str, width: int) -> str:
    """Cut a text that names nothing to so many cells, with `…` for what is missing."""
    if cells(text) <= width:
        return text
    kept, left = "", width - 1
    for character in text:
        left -= cells(character)
        if left < 0:
            break
        kept += character
    return f"{kept}…" if width > 0 else ""


def folded(text: str, width: int, kind: Kind) -> list[str]:
    """Break a text into lines of at most so many cells; what names a thing is whole, however long it is."""
    if cells(text) <= width or kind in (Kind.IDENTIFIER, Kind.FIGURE):
        return [text]
    lines, line = [], ""
    for piece in _pieces(text, kind):
        if line and cells(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line, piece = "", piece.lstrip()
        if kind is Kind.TEXT and cells(piece.rstrip()) > width:
            *whole, piece = _chopped(piece, width)
            lines += whole
        line += piece
    return [*lines, line.rstrip()] if line.rstrip() or not lines else lines


def _pieces(text: str, kind: Kind) -> Iterator[str]:
    """Split after what stands between words, or between names, which may hold blanks."""
    start, between = 0, " ," if kind is Kind.TEXT else ",|"
    for number, character in enumerate(text, 1):
        if character in between:
            yield text[start:number]
            start = number
    if start < len(text) or not text:
        yield text[start:]


def _chopped(word: str, width: int) -> list[str]:
    """Chop a word that is longer than a line."""
    parts, part = [], ""
    for character in word:
        if part and cells(part + character) > width:
            parts.append(part)
            part = ""
        part += character
    return [*parts, part]


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + len(GAP) * max(0, len(widths) - 1)

"""A picture of rooms: one row per floor, a curve for each arrow, red for an arrow that leads upwards (a cycle)."""

from collections.abc import Mapping
from itertools import chain
from xml.sax.saxutils import escape

from bench.map.figures import Rooms

BOX_HEIGHT, GAP, ROW, MARGIN, LETTER = 30, 14, 120, 30, 7.4  # pixels
WIDEST = 2400  # a wider floor is drawn in several lines
SWEEPS = 12

Place = tuple[float, float, float]  # centre's x, top's y, width


def draw(rooms: Rooms, title: str, labels: Mapping[str, str]) -> str:
    """Return SVG. `labels` are the texts of the rooms' boxes."""
    widths = {name: len(label) * LETTER + 16 for name, label in labels.items()}
    rows = _untangled(_split(rooms.floors, widths), rooms)
    places = _places(rows, widths)
    width = max((x + wide / 2 for x, _, wide in places.values()), default=0) + MARGIN
    height = MARGIN * 2 + 20 + len(rows) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="{MARGIN}" font-size="16">{escape(title)}</text>',
    ]
    parts += [_curve(places[a], places[b], a, b, count) for (a, b), count in rooms.arrows.items()]
    parts += [_box(places[name], labels[name]) for name in rooms.names]
    return "\n".join([*parts, "</svg>", ""])


def _split(floors: list[list[str]], widths: Mapping[str, float]) -> list[list[str]]:
    """Return the rows from the top."""
    rows: list[list[str]] = []
    for floor in reversed(floors):
        row: list[str] = []
        for name in floor:
            if row and sum(widths[each] + GAP for each in [*row, name]) > WIDEST:
                rows.append(row)
                row = []
            row.append(name)
        rows.append(row)
    return rows


def _untangled(rows: list[list[str]], rooms: Rooms) -> list[list[str]]:
    """Return each row ordered by the position of its neighbours, which reduces crossings."""
    neighbours: dict[str, list[str]] = {name: [] for name in rooms.names}
    for importer, imported in rooms.arrows:
        neighbours[importer].append(imported)
        neighbours[imported].append(importer)
    at = {name: index / max(len(row) - 1, 1) for row in rows for index, name in enumerate(row)}
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 else reversed(rows):
            row.sort(key=lambda name: sum(at[each] for each in neighbours[name]) / max(len(neighbours[name]), 1))
            at |= {name: (index + 0.5) / len(row) for index, name in enumerate(row)}
    return rows


def _places(rows: list[list[str]], widths: Mapping[str, float]) -> dict[str, Place]:
    lengths = [sum(widths[name] + GAP for name in row) for row in rows]
    middle = MARGIN + max(chain(lengths, [0])) / 2
    places: dict[str, Place] = {}
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        x = middle - length / 2
        for name in row:
            places[name] = (x + widths[name] / 2, MARGIN + 30 + number * ROW, widths[name])
            x += widths[name] + GAP
    return places


def _box(place: Place, label: str) -> str:
    x, y, width = place
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BOX_HEIGHT}" rx="5" fill="#eef3f8"'
        f' stroke="#1b6ca8"/><text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">{escape(label)}</text>'
    )


def _curve(start: Place, end: Place, importer: str, imported: str, count: int) -> str:
    down = end[1] > start[1]
    colour = "#8899aa" if down else "#d1495b"
    y1, y2 = (start[1] + BOX_HEIGHT, end[1]) if down else (start[1], end[1] + BOX_HEIGHT)
    if start[1] == end[1]:
        y1 = y2 = start[1]
    bend = ROW / 2 if down else -ROW / 2
    stroke = 0.8 + min(count, 20) / 8
    return (
        f'<path d="M{start[0]:.1f},{y1:.1f} C{start[0]:.1f},{y1 + bend:.1f} {end[0]:.1f},'
        f'{y2 - bend if y1 != y2 else y2 + bend:.1f} {end[0]:.1f},{y2:.1f}" fill="none" stroke="{colour}"'
        f' stroke-width="{stroke:.1f}" stroke-opacity="0.55"><title>{escape(importer)} imports {escape(imported)}'
        f" ({count})</title></path>"
        f'<circle cx="{end[0]:.1f}" cy="{y2:.1f}" r="2.6" fill="{colour}"/>'
    )

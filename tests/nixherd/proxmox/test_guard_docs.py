"""docs/guard.md lists the guard's table as it is. UPDATE_DOCS=1 writes it anew."""

import os
from collections.abc import Iterator
from pathlib import Path

from nixherd.proxmox.guard.routes import ROUTES
from nixherd.proxmox.route import Effect, Guest, Kind, Route

FILE = Path(__file__).parents[3] / "docs" / "guard.md"
BEGIN, END = "<!-- the table, from nixherd/proxmox/guard/routes.py -->\n", "<!-- end of the table -->\n"
_NAMING = {
    Kind.VMID: "a VMID", Kind.NEW_VMID: "the guest to be made", Kind.DRIVE: "volumes",
    Kind.ARCHIVE: "a backup's guest", Kind.UNPACKED: "a backup's guest", Kind.IMAGE: "the template that it is for",
}  # fmt: skip


def named_by(route: Route) -> Iterator[str]:
    """Where a request names guests that must be changeable."""
    if "{vmid}" in route.path:
        says = {Guest.SOURCE: "path (or the template)", Guest.LOOKED_INTO: "path (managed, three files)"}
        yield says.get(route.guest, "path")
    for name, kind in {**route.parameters, **{f"{key}N": kind for key, kind in route.indexed.items()}}.items():
        if kind in _NAMING:
            yield f"`{name}`: {_NAMING[kind]}"
    made = [word for word, is_so in (("template", route.template), ("trial", route.trial)) if is_so]
    if made:
        yield f"*{' and '.join(made)} in the making*"


def table() -> str:
    rows = ["| request | does | names guests in |", "|---|---|---|"]
    changing = [route for route in ROUTES if route.effect is not Effect.READ]
    for route in sorted(changing, key=lambda route: (route.path, route.method)):
        rows.append(f"| `{route.method} {route.path}` | {route.effect} | {', '.join(named_by(route))} |")
    reads = sorted(route.path for route in ROUTES if route.effect is Effect.READ)
    looked = "\nRead, naming guests freely: " + ", ".join(f"`{path}`" for path in reads) + ".\n"
    return "\n".join(rows) + "\n" + looked


def test_the_table_in_the_documentation_is_the_one_that_is_used() -> None:
    text = FILE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert before != text, "the markers are missing"
    wanted = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if os.environ.get("UPDATE_DOCS"):
        FILE.write_text(wanted)
    assert FILE.read_text() == wanted

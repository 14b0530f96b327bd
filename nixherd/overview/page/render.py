"""Pages out of the document: `index.html`, and a page for each host beside it. Input is the document, and nothing else.

Everything that somebody else wrote is text on them: Jinja2 escapes it, what a terminal or a reader would obey is shown
as what it is, and the policy in each page lets no script run but ours, which it knows by its hash.
"""

import base64
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nixherd.base.errors import FleetError
from nixherd.base.files import write_whole
from nixherd.base.names import human
from nixherd.base.terminal import visible
from nixherd.fleet.revisions import shown
from nixherd.overview.document import State
from nixherd.overview.page import charts

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
INDEX, HOSTS, MANIFEST = "index.html", "hosts", ".nixherd-pages.json"
SYMBOLS = {State.SAME: "✓", State.DIFFERS: "≠", State.UNREACHABLE: "✕", State.UNKNOWN: "?"}
COLUMNS = ("Host", "State", "Differs", "Revision", "Deployed", "Ran over time", "Backup", "Updates")
_RANKS = {str(state): rank for rank, state in enumerate((State.DIFFERS, State.UNREACHABLE, State.UNKNOWN, State.SAME))}
Document = Mapping[str, Any]
Histories = Mapping[str, charts.History]


class Pages:
    """The pages of one document. `events`: where a server tells of a newer one; `notice`: what a reader is to know
    besides, such as that this one is old."""

    def __init__(
        self, document: Document, histories: Histories, *, events: str | None = None, notice: str | None = None
    ) -> None:
        self.document, self._histories, self._events = document, histories, events
        end = datetime.fromisoformat(document["taken"])
        self._span = charts.span_of(histories.values(), end)
        self._palette = charts.palette(histories.values())
        self._notice = notice
        self.names = {host["host"]: name_of(host["host"]) for host in document["hosts"]}

    def index(self) -> str:
        """The page of the fleet."""
        dots, longest = charts.durations(self._histories, self._span) if self._span else ([], 0.0)
        return self._render(
            "index.html.j2",
            columns=COLUMNS,
            dots=dots,
            heat=charts.heat(self.document),
            hosts=sorted(self.document["hosts"], key=lambda host: (_RANKS[host["state"]], host["host"])),
            links={host: f"{HOSTS}/{quote(name)}" for host, name in self.names.items()},
            longest=longest,
            notice=self._notice,
            palette=self._palette,
            ranks=_RANKS,
            span=self._shown_span,
            strips={host["host"]: self._strip(host["host"]) for host in self.document["hosts"]},
            weeks=charts.weeks(self._histories.values()),
        )

    def host(self, host: Mapping[str, Any]) -> str:
        """The page of one host."""
        lines = [{**_LINE, **line} for line in reversed(self._histories.get(host["host"], ()))]
        segments = self._strip(host["host"])
        return self._render(
            "host.html.j2", back=f"../{INDEX}", history=lines, host=host, segments=segments, span=self._shown_span
        )

    def _strip(self, host: str) -> list[charts.Segment]:
        history = self._histories.get(host, ())
        return charts.strip(history, self._span, self._palette) if self._span else []

    @property
    def _shown_span(self) -> dict[str, str] | None:
        span = self._span
        return {"begin": _written(span.begin), "end": _written(span.end)} if span else None

    def _render(self, template: str, **values: Any) -> str:
        events = self._events if template.startswith("index") else None
        common = {"document": self.document, "events": events, "policy": policy(served=bool(events))}
        parts = {"script": _script(), "style": _style(), "symbols": SYMBOLS}
        return _environment().get_template(template).render(**common, **parts, **values)


_LINE = dict.fromkeys(
    ("began", "number", "run", "command", "outcome", "why", "revision", "revision_before", "operator", "seconds")
) | {"source": "proved"}


def name_of(host: str) -> str:
    """The file of a host's page: no name leads out of the directory, and no two are one on a disk without case."""
    plain = quote(host, safe="").replace("~", "%7E")
    if plain != host or host != host.lower() or host.startswith(".") or not 0 < len(host) <= 80:
        digest = hashlib.sha256(host.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        plain = f"{plain.replace('%', '_').lstrip('.')[:80]}-{digest}"
    return f"{plain}.html"


def policy(*, served: bool) -> str:
    """The Content-Security-Policy: our style and our script, and nothing from anywhere."""
    connect = "connect-src 'self'; " if served else ""
    return (
        f"default-src 'none'; style-src '{_hash(_style())}'; script-src '{_hash(_script())}'; img-src data:; {connect}"
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _style() -> str:
    return (HERE / "style.css").read_text(encoding="utf-8")


@cache
def _script() -> str:
    return (HERE / "script.js").read_text(encoding="utf-8")


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        finalize=_visible,
        loader=FileSystemLoader(HERE),
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "bytes": human,
        "cut": lambda text, width: text if len(text) <= width else f"{text[: width - 1]}…",
        "day": lambda time: str(time).replace("T", " ")[:16],
        "last_name": lambda path: str(path).rstrip("/").rpartition("/")[2] or path,
        "length_of_time": _length_of_time,
        "short": shown,
    }
    return environment


def _visible(value: Any) -> Any:
    """What would act on a reader (as turning the direction of writing) is shown; markup of ours is as it is."""
    return visible(value) if type(value) is str else value


def _length_of_time(seconds: int | None) -> str:
    if seconds is None:
        return "unknown"
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min"


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# Files


def write(directory: Path, pages: Pages) -> int:
    """Write all pages below a directory, each whole, the index last; return how many. Pages of hosts that are gone go;
    what is not ours stays. FleetError where a link, or a file of somebody else's, is in the way."""
    texts = {f"{HOSTS}/{pages.names[host['host']]}": host for host in pages.document["hosts"]}
    for each in (directory, directory / HOSTS):
        _require_plain(each, directory=True)
        each.mkdir(mode=0o755, exist_ok=True, parents=each == directory)
    ours = _manifest(directory)
    for name in (*texts, INDEX):
        _require_plain(directory / name)
        if (directory / name).exists() and name not in ours:
            raise FleetError(f"{directory / name}: is there, and was not made by nixherd; name another directory")
    write_whole(directory / MANIFEST, json.dumps(sorted({*ours, *texts, INDEX})), 0o644)
    for name, host in texts.items():
        write_whole(directory / name, pages.host(host), 0o644)
    write_whole(directory / INDEX, pages.index(), 0o644)
    for name in ours - {*texts, INDEX}:
        (directory / name).unlink(missing_ok=True)
    write_whole(directory / MANIFEST, json.dumps(sorted({*texts, INDEX})), 0o644)
    return len(texts) + 1


def _require_plain(path: Path, *, directory: bool = False) -> None:
    """FleetError for what is neither missing nor plainly there: whoever put a link there says where we would write."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISDIR(mode) if directory else stat.S_ISREG(mode)):
        raise FleetError(f"{path}: is not a {'directory' if directory else 'file'}, nor is one made there; remove it")


def _manifest(directory: Path) -> set[str]:
    """What we made there before; nothing that is not a page below it."""
    try:
        names: Sequence[Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        return {name for name in _texts(names) if name == INDEX or _is_page(name)}
    except (OSError, ValueError, TypeError):
        return set()


def _texts(names: Iterable[Any]) -> Iterable[str]:
    return (name for name in names if isinstance(name, str))


def _is_page(name: str) -> bool:
    parent, _, file = name.partition("/")
    return parent == HOSTS and file.endswith(".html") and "/" not in file and not file.startswith(".")

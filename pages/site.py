"""The site: `python -m pages.site` builds every page with Sphinx into build/site; a broken link fails, a warning too.

Pages are copied first, with the files that they link to: Sphinx takes what is below one directory, and the checkout has
much that are not pages. Nothing that a browser opens asks another host: fonts are the reader's, scripts are local.
"""

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

from pages.markdown import ROOT, Page, broken, pages, slug, tracked

SOURCE, SITE = ROOT / "build" / "pages", ROOT / "build" / "site"
FIRST = "README.md"
CHAPTERS: Mapping[str, tuple[str, ...]] = {
    "Begin": ("evening", "adopting", "any-fleet", "taking-over", "troubleshooting", "upgrading", "lab"),
    "Work": ("everyday", "status", "history", "monitoring", "deploying", "provisioning", "new-host", "retiring", "vm",
             "secrets", "check", "updates", "hooks", "ci", "scale", "operations"),
    "Set up": ("proxmox", "proxmox-host", "ssh", "guard", "security"),
    "Reference": ("fields", "reference/commands", "reference/vm", "reference/secrets", "reference/operations",
                  "reference/facts", "reference/deploys", "reference/data", "reference/environment"),
}  # fmt: skip
REST = "The project"
SETTINGS = {
    "project": "nixherd",
    "root_doc": FIRST.removesuffix(".md"),
    "extensions": ["myst_parser"],
    "source_suffix": {".md": "markdown"},
    "myst_heading_anchors": 6,
    "myst_heading_slug_func": f"{slug.__module__}.{slug.__qualname__}",
    "html_theme": "furo",
    "html_title": "nixherd",
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "suppress_warnings": ["misc.highlighting_failure", "myst.header"],  # a console's output, a level that is left out
}
_ASKS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
}
_LINKS_THAT_LOAD = {
    "stylesheet",
    "icon",
    "preload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "modulepreload",
    "manifest",
}


def main() -> int:
    """Build the site; return 0, or 1 after saying what is wrong."""
    every = pages()
    problems = list(broken(every))
    if not problems:
        stage(every)
        shutil.rmtree(SITE, ignore_errors=True)
        if status := _sphinx():
            return status
        (SITE / "index.html").write_text(f'<meta http-equiv="refresh" content="0; url={SETTINGS["root_doc"]}.html">\n')
        problems = [line for path in sorted(SITE.rglob("*.html")) for line in foreign(path)]
    print("\n".join(problems), file=sys.stderr) if problems else print(f"{SITE.relative_to(ROOT)}/index.html")
    return 1 if problems else 0


def _sphinx() -> int:
    from sphinx.application import Sphinx

    doctrees = ROOT / "build" / "doctrees"
    app = Sphinx(SOURCE, None, SITE, doctrees, "html", SETTINGS, status=None, warningiserror=True, freshenv=True)
    app.build()
    return int(app.statuscode)


def stage(every: Iterable[Page]) -> None:
    """Copy pages, and what they link to; a directory that is linked to is its README, or a page that lists it."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    every = list(every)
    listed = set[str]()
    for page in every:
        text = page.text
        for _, target in page.links:
            name = _inside(page, target)
            if name is None:
                continue
            if (ROOT / name).is_dir():
                readme = (ROOT / name / "README.md").is_file()
                text = text.replace(f"]({target})", f"]({target.rstrip('/')}/{'README' if readme else 'index'}.md)")
                listed |= set() if readme else {name}
            elif not name.endswith(".md"):
                _copy(name)
        _write(page.name, text)
    for name in sorted(listed):
        _write(f"{name}/index.md", "".join(_listing(name)))
    names = [str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.md")]
    with (SOURCE / FIRST).open("a") as first:
        first.writelines(contents(names))


def contents(names: Iterable[str]) -> Iterator[str]:
    """Make the table of contents, which has every page once."""
    left = {name.removesuffix(".md") for name in names} - {FIRST.removesuffix(".md")}
    for chapter, wanted_names in CHAPTERS.items():
        known = [f"docs/{name}" for name in wanted_names if f"docs/{name}" in left]
        left -= set(known)
        yield _chapter(chapter, known)
    yield _chapter(REST, sorted(left))


def _chapter(title: str, names: Iterable[str]) -> str:
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {title}", "", *names, "```", ""])


def _listing(directory: str) -> Iterator[str]:
    yield f"# {directory}\n\n"
    for name in tracked(directory):
        _copy(name) if not name.endswith(".md") else None
        yield f"- [{Path(name).name}]({Path(name).relative_to(directory)})\n"


def _inside(page: Page, target: str) -> str | None:
    """Return the path from the repository's top that a link leads to; None elsewhere, or within its own page."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not parts.path:
        return None
    return str(((ROOT / page.name).parent / parts.path).resolve().relative_to(ROOT.resolve()))


def _copy(name: str) -> None:
    (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / name, SOURCE / name)


def _write(name: str, text: str) -> None:
    (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
    (SOURCE / name).write_text(text)


class _Requests(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        rels = set((values.get("rel") or "").split())
        loads = "href" if tag == "link" and rels & _LINKS_THAT_LOAD else _ASKS.get(tag, "")
        if address := values.get(loads):
            self.addresses.append(address)


def foreign(path: Path) -> Iterator[str]:
    """Say which addresses of other hosts a browser would ask when it opens this page."""
    parser = _Requests()
    parser.feed(path.read_text())
    for address in parser.addresses:
        parts = urlsplit(address)
        if parts.netloc or parts.scheme not in ("", "data"):
            yield f"{path}: asks {address}"


if __name__ == "__main__":
    sys.exit(main())

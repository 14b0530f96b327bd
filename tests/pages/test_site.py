"""What `make docs` builds from: the pages that are copied, their contents, and no request to other hosts."""

from pathlib import Path

import pytest

from pages import site
from pages.markdown import ROOT, Page, broken, pages, tracked


def test_every_page_is_in_the_contents_once() -> None:
    names = tracked("*.md")
    listed = [line for line in "".join(site.contents(names)).splitlines() if line and line[0] not in "`:"]
    assert sorted(listed) == sorted(name.removesuffix(".md") for name in names if name != "README.md")


def test_chapters_name_pages_that_exist() -> None:
    named = [name for names in site.CHAPTERS.values() for name in names]
    assert [name for name in named if not (ROOT / "docs" / f"{name}.md").is_file()] == []


def test_what_is_copied_has_no_broken_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "SOURCE", tmp_path)
    site.stage(pages())
    copied = [Page(str(path.relative_to(tmp_path)), path.read_text()) for path in tmp_path.rglob("*.md")]
    assert {page.name for page in copied} > {"README.md", "fleet/README.md", "docs/adr/index.md"}
    assert list(broken(copied, tmp_path)) == []
    targets = [tmp_path / page.name / ".." / target for page in copied for _, target in page.links if ":" not in target]
    assert [target for target in targets if "#" not in str(target) and target.resolve().is_dir()] == []


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ('<script src="https://cdn.example/x.js">', True), ('<link rel="stylesheet" href="//f.example/a.css">', True),
        ('<link rel="preconnect" href="https://fonts.example">', True), ('<img src="http://example.org/x.png">', True),
        ('<a href="https://example.org">', False), ('<script src="../x.js">', False),
        ('<link rel="canonical" href="https://example.org">', False), ('<img src="data:image/svg+xml,x">', False),
    ],
)  # fmt: skip
def test_what_asks_another_host(tmp_path: Path, text: str, asks: bool) -> None:
    page = tmp_path / "a.html"
    page.write_text(text)
    assert bool(list(site.foreign(page))) is asks

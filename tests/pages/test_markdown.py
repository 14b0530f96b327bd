"""Every inner link of every Markdown file leads to a file and heading that exist; the site's builder is not needed."""

from pathlib import Path

import pytest

from pages.markdown import Block, Page, broken, pages


def test_every_inner_link_leads_somewhere() -> None:
    every = pages()
    assert {"README.md", "fleet/README.md", "CONTRIBUTING.md", "docs/lab.md"} <= {page.name for page in every}
    assert sum(len(page.links) for page in every) > 150
    assert list(broken(every)) == []


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("b.md", ""), ("b.md#two-words", ""), ("#one", ""), ("sub/", ""), ("https://example.org/#x", ""),
        ("c.md", "does not exist"), ("b.md#three", "b.md has no heading of that anchor"),
        ("#two", "a.md has no heading of that anchor"), ("sub/#x", "sub has no heading of that anchor"),
        ("../other.md", "is outside of the repository"),
    ],
)  # fmt: skip
def test_a_link(tmp_path: Path, target: str, problem: str) -> None:
    (tmp_path / "sub").mkdir()
    texts = {"a.md": f"# One\n\n| x |\n|---|\n| [text]({target}) |\n", "b.md": "# Two *words*\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    line = [f"a.md:5: {target}: {problem}"] if problem else []
    assert list(broken([Page(*each) for each in texts.items()], tmp_path)) == line


def test_links_in_code_are_none() -> None:
    assert Page("a.md", "`[a](b.md)`\n\n    [a](c.md)\n\n[a](d.md) ![i](e.svg)\n").links == [(5, "d.md"), (5, "e.svg")]


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Two words", "two-words"),
        ("`proxmox`", "proxmox"),
        ("a, b & c", "a-b--c"),
        ("hosts.nix, x_y-z", "hostsnix-x_y-z"),
    ],
)
def test_anchors_are_those_of_github(heading: str, anchor: str) -> None:
    assert Page("a.md", f"# {heading}\n").anchors == [anchor]


def test_a_second_heading_of_the_same_text_has_a_number() -> None:
    assert Page("a.md", "# A\n\n## B\n\nB\n-\n\n# B\n").anchors == ["a", "b", "b-1", "b-2"]


def test_blocks_of_code() -> None:
    page = Page("a.md", "x\n\n```console\n$ a\n```\n\n    b\n\n- c\n\n      d\n")
    assert page.blocks == [Block(4, "console", "$ a\n"), Block(7, "", "b\n"), Block(11, "", "d\n")]

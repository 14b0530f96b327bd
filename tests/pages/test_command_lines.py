"""Every `nixherd …` in a block of the pages parses with click. Running all of them in the lab is not done here."""

import pytest

from nixherd.cli.main import cli
from pages.command_lines import CommandLine, command_lines, problem
from pages.markdown import Page, pages

# Of the past, and of how a command should look some day: they need not parse.
OTHERS = ("CHANGELOG.md", "docs/adr/")
EVERY = [line for page in pages() if not page.name.startswith(OTHERS) for line in command_lines(page)]


def test_there_are_many() -> None:
    assert len(EVERY) > 150
    assert {"README.md", "fleet/README.md", "docs/vm.md", "docs/everyday.md"} <= {line.page for line in EVERY}


@pytest.mark.parametrize("page", sorted({line.page for line in EVERY}))
def test_the_command_lines_of_a_page_parse(page: str) -> None:
    wrong = [f"{line}: {why}" for line in EVERY if line.page == page and (why := problem(cli, line.words))]
    assert wrong == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("deploy web01 --soak 60", ""), ("vm", ""), ("deploy --help", ""), ("exec web01 -- ls -l --nonsense", ""),
        ("vm destroy dev 110 --stop", ""), ("--fleet . secrets status", ""),
        ("deploi", "No such command 'deploi'."), ("vm stopp dev", "No such command 'stopp'."),
        ("deploy --sok 60", "No such option"), ("vm destroy dev", "Missing argument 'VMID'."),
        ("deploy --goal swich", "Invalid value for '--goal': 'swich' is not one of"),
        ("vm destroy dev eleven", "Invalid value for 'VMID': 'eleven' is not a valid integer"),
        ("vm start dev dev2", "unexpected: dev2"), ("deploy --soak", "Option '--soak' requires an argument."),
    ],
)  # fmt: skip
def test_a_command_line(words: str, why: str) -> None:
    message = problem(cli, words.split())
    assert message.startswith(why)
    assert bool(message) == bool(why)


def test_command_lines_of_blocks() -> None:
    text = """\
```console
$ nixherd a; echo $?
nixherd this is output
$ X=1 nixherd b \\
    'c d' | nixherd e > out --f
```
```sh
nixherd g < in && sudo nixherd h   # nixherd comment
cat > x <<EOF
nixherd in a document
EOF
uvx --from git+https://example.org/x nixherd plan
```
```nix
nixherd nix
```

    nixherd i
"""
    assert [(line.line, " ".join(line.words)) for line in command_lines(Page("a.md", text))] == [
        (2, "a"), (4, "b c d"), (4, "e --f"), (8, "g"), (8, "h"), (12, "plan"), (18, "i"),
    ]  # fmt: skip
    assert str(CommandLine("a.md", 4, ("b", "c d"))) == "a.md:4: nixherd b 'c d'"

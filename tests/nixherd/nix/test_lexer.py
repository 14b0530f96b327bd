"""Forms that Nix has and the grammar for tree-sitter lacks are edited as others are."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.nix.edit import NixText
from nixherd.nix.lexer import known_forms
from nixherd.nix.syntax import parse
from tests.nix_cli import environment
from tests.properties import examples

LIKE = [
    ("{ a, b ? 1, }: a", "{ a, b ? 1  }: a"),
    ("{ a, /* b */ # c\n  }: a", "{ a  /* b */ # c\n  }: a"),
    ("args@{ a, }: a", "args@{ a  }: a"),
    ("{ a ? { b, }: b, }: a", "{ a ? { b  }: b  }: a"),
    ('"${({ a, }: a) { a = ","; }},}"', '"${({ a  }: a) { a = ","; }},}"'),
    ("''\n  ${({ a, }: a) { a = \"x\"; }} ,}\n''", "''\n  ${({ a  }: a) { a = \"x\"; }} ,}\n''"),
    ("{ pipe, opened, }: pipe.inherit |> opened", "{ pipe, opened  }: pipe.inherit -> opened"),
    ("'''${\"a\"}' b''", "'' ${\"a\"}' b''"),
    ("[ 1 ] |> map (x: x)", "[ 1 ] -> map (x: x)"),
    ("map (x: x) <| [ 1 ]", "map (x: x) <- [ 1 ]".replace("<-", "->")),
    ("let inherit ({ }); in 1", "let                in 1"),
    ("{ inherit; inherit ({ a = (1); }); b = 1; }", "{                                  b = 1; }"),
]
UNTOUCHED = [
    '{ a, b }: "{ a, }" + a',
    "# { a, }\n/* { a, } |> */ 1",
    "'' { a, } ''${ |> ''' ${\"a,}\"} ''\\n {a,} ''",
    '"\\"{ a, } \\${ |> $${a,}"',
    "{ x = http://example.org/a,; y = a || b; inherit (x) y; inherit z; }",
    "let a = <nixpkgs>; in a < b && b > c || true",
]


@pytest.mark.parametrize(("source", "like"), LIKE, ids=[source for source, _ in LIKE])
def test_a_form_that_the_grammar_lacks_becomes_one_like_it(source: str, like: str) -> None:
    assert known_forms(source.encode()).decode() == like
    assert not parse(source.encode()).has_error


@pytest.mark.parametrize("source", UNTOUCHED)
def test_texts_and_comments_stay(source: str) -> None:
    assert known_forms(source.encode()).decode() == source


@examples(500)
@given(
    st.lists(st.sampled_from([*"{}(),;\"#'$\\ \n\r", "''", "${", "/*", "*/", "|>", "inherit", "a", "\xff"])).map(
        "".join
    )
)
def test_nothing_moves(text: str) -> None:
    source = text.encode("latin-1")
    known = known_forms(source)
    assert len(known) == len(source)
    assert [at for at, byte in enumerate(source) if byte in b"\r\n"] == [
        at for at, byte in enumerate(known) if byte in b"\r\n"
    ]


FILES = [
    'let\n  of = { name, user ? "admin", }: { inherit user name; };\nin\n{\n  dev = @ // of { name = "dev"; };\n}\n',
    "let\n  inherit ({ });\nin\n{\n  dev = @;\n}\n",
    'let\n  names = [ "a" ] |> map (name: name);\nin\n{\n  other = toString names;\n  dev = @;\n}\n',
]


@pytest.mark.nix
@pytest.mark.parametrize("text", FILES)
def test_a_file_with_such_a_form_is_edited(text: str, tmp_path: Path) -> None:
    source = text.replace("@", '{ publicKey = "old"; }').encode()
    text_of_it = NixText("hosts.nix", source)
    assert text_of_it.set(("dev", "publicKey"), '"new"') == source.replace(b"old", b"new")
    assert text_of_it.written(("dev", "publicKey")) == '"old"'
    added = text_of_it.add(("web",), ['{ publicKey = "web"; }'])
    assert NixText("hosts.nix", added).remove(("web",)) == source
    for number, content in enumerate((source, added)):
        file = tmp_path / f"{number}.nix"
        file.write_bytes(content)
        command = ["nix-instantiate", "--parse", "--extra-experimental-features", "pipe-operators", str(file)]
        subprocess.run(command, env=environment(), check=True, capture_output=True, timeout=60)

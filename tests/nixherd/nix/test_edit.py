"""Edits of Nix files: what was meant, every other byte as it was, and a clear refusal where it is not written out."""

import json
from pathlib import Path

import pytest
from hypothesis import given

from nixherd.nix.edit import CannotEdit, NixText, attribute_name
from tests.nix_cli import nix_json
from tests.nixherd.generated_nix import Sample, samples
from tests.properties import examples

pytestmark = pytest.mark.xdist_group("nix_edit")  # one worker: what is generated is evaluated

REFERENCE = Path(__file__).parents[3] / "fleet"
KEY = ("dev", "publicKey")
NEW = '"ssh-ed25519 AAAA root@dev"'

_tried: list[Sample] = []


@pytest.mark.slow
@examples(300)
@given(samples())
def test_replacing_one_attribute_keeps_every_other_byte(sample: Sample) -> None:
    assert NixText("hosts.nix", sample.source).set(KEY, NEW) == sample.before + NEW.encode() + sample.after
    _tried.append(sample)


@pytest.mark.nix
def test_what_was_edited_means_what_was_intended(tmp_path: Path) -> None:
    """Nix reads all of them, before and after; nothing but the one attribute differs."""
    if not _tried:
        pytest.skip("the property test ran in another worker")
    tried = list({sample.source: sample for sample in _tried}.values())
    for number, sample in enumerate(tried):
        (tmp_path / f"{number}-before.nix").write_bytes(sample.source)
        (tmp_path / f"{number}-after.nix").write_bytes(NixText("f", sample.source).set(KEY, NEW))
    plain = (
        f"let p = v: if builtins.isPath v then toString v else if builtins.isAttrs v then builtins.mapAttrs (_: p) v"
        f" else if builtins.isList v then map p v else v;"
        f' d = /. + "{tmp_path}"; in builtins.mapAttrs (name: _: p (import (d + "/${{name}}"))) (builtins.readDir d)'
    )
    found = nix_json("eval", "--impure", "--json", "--expr", plain)
    assert len(found) == 2 * len(tried)
    for number in range(len(tried)):
        before, after = found[f"{number}-before.nix"], found[f"{number}-after.nix"]
        assert after["dev"].pop("publicKey") == json.loads(NEW)
        before["dev"].pop("publicKey")
        assert before == after


@examples(200)
@given(samples())
def test_what_is_added_is_removed_again(sample: Sample) -> None:
    added = NixText("hosts.nix", sample.source).add(("added-host",), ["{", '  hostname = "x";', "}"])
    assert b"added-host = {" in added
    back = NixText("hosts.nix", added).remove(("added-host",))
    assert back == sample.source
    with pytest.raises(CannotEdit, match="added-host is there already"):
        NixText("hosts.nix", added).add(("added-host",), ["{", "}"])


def edited(source: str, value: str = "true", path: tuple[str, ...] = ("dev", "readonly")) -> str:
    return NixText("f.nix", source.encode()).set(path, value).decode()


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("{ dev = { }; }", "{ dev = { readonly = true; }; }"),
        ("{ dev = {}; }", "{ dev = { readonly = true; }; }"),
        ("{\n  dev = {\n  };\n}\n", "{\n  dev = {\n    readonly = true;\n  };\n}\n"),
        ("{\n  dev = {\n    a = 1; # why\n  };\n}", "{\n  dev = {\n    a = 1; # why\n    readonly = true;\n  };\n}"),
        ("{\r\n\tdev = {\r\n\ta = 1;\r\n\t};}", "{\r\n\tdev = {\r\n\ta = 1;\r\n\treadonly = true;\r\n\t};}"),
        ("{ dev.a = 1; }", "{ dev.a = 1; dev.readonly = true; }"),
        ("{\n  dev.a = 1; # why\n}", "{\n  dev.a = 1; # why\n  dev.readonly = true;\n}"),
        ("{ dev = { readonly = false; }; }", "{ dev = { readonly = true; }; }"),
        ("let dev = { a = 1; }; in { inherit dev; }", "let dev = { a = 1; readonly = true; }; in { inherit dev; }"),
        ("let c = { }; in { dev = c // { a = 1; }; }", "let c = { }; in { dev = c // { a = 1; readonly = true; }; }"),
        ("(with lib; { dev = { a = []; }; })", "(with lib; { dev = { a = []; readonly = true; }; })"),
        ('{ "dev"."ü".x = 1; }', '{ "dev"."ü".x = 1; "dev".readonly = true; }'),
        ('{ "dev" = rec { a = 1; b = a; }; }', '{ "dev" = rec { a = 1; b = a; readonly = true; }; }'),
    ],
)  # fmt: skip
def test_an_attribute_that_is_missing_is_added_as_the_others_are_written(source: str, wanted: str) -> None:
    assert edited(source) == wanted


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{ dev = { inherit (flags) readonly; }; }", "f.nix:1: dev.readonly is not written here by itself"),
        ("{\n  dev = mkHost { readonly = false; };\n}", "f.nix:2: dev.readonly is not written here by itself"),
        ("{ dev = if true then { } else { }; }", "dev.readonly is not written here by itself"),
        ("{ dev = import ./dev.nix; }", "dev.readonly is not written here by itself"),
        ("{ other = { }; }", "dev is not written out there; add `readonly = true;` by hand"),
        ("{ dev = { readonly = 1; readonly = 2; }; }", "dev.readonly is there twice"),
        (
            "{ dev = { readonly = 1 }; }",
            "f.nix:1: nixherd cannot edit this form; write `dev.readonly = true;` by hand",
        ),
        ("{\n<<<<<<< HEAD\n  dev = { };\n=======\n>>>>>>> x\n}", "nixherd cannot edit this form; write"),
        ("{ dev = { }; ", "nixherd cannot edit this form; write"),
        ("", "there is nothing in it"),
        ("# only words\n", "there is nothing in it"),
        ("{ lib }: { dev = { }; }", "dev is not written out there"),
        ("let a = b; b = a; in a", "dev is not written out there"),
    ],
)
def test_what_is_not_written_out_is_refused_with_its_line(source: str, words: str) -> None:
    with pytest.raises(CannotEdit) as caught:
        edited(source)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_right_side_of_a_merge_wins() -> None:
    source = "{ dev = { readonly = 1; }; } // { dev = { readonly = 2; }; }"
    assert edited(source) == "{ dev = { readonly = 1; }; } // { dev = { readonly = true; }; }"


def test_an_entry_goes_with_its_comment_and_the_blank_line_before() -> None:
    source = (REFERENCE / "hosts.nix").read_bytes()
    lines = NixText("hosts.nix", source).remove(("caddy",)).decode().splitlines(keepends=True)
    gone = [line for line in source.decode().splitlines(keepends=True) if line not in lines]
    assert gone[0] == "  # Another operating system with Home Manager: no configurationFile.\n"
    assert "  };\n\n  # NixOS-WSL.\n" in "".join(lines)
    last = NixText("hosts.nix", source).remove(("dev",)).decode()
    assert last.endswith("  };\n}\n")
    assert "VM 110" not in last


def test_every_binding_of_an_entry_goes() -> None:
    source = b'{\n  dev.a = 1;\n  other = 2;\n  dev.b = "x"; # why\n}\n'
    assert NixText("f", source).remove(("dev",)) == b"{\n  other = 2;\n}\n"
    with pytest.raises(CannotEdit, match=r"nobody does not exist, so it cannot be removed"):
        NixText("f", source).remove(("nobody",))


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ("let\n  web = {\n  };\n  b = 2;\nin {\n  inherit web b;\n}\n", "let\n  b = 2;\nin {\n  inherit b;\n}\n"),
        ("let\n  web = 1;\n  b = 2;\nin {\n  inherit web;\n  c = b;\n}\n", "let\n  b = 2;\nin {\n  c = b;\n}\n"),
        # somebody else has a use for it
        ("let\n  web = 1;\nin {\n  inherit web;\n  c = web;\n}\n", "let\n  web = 1;\nin {\n  c = web;\n}\n"),
        ("{\n  inherit (import ./x.nix) web b;\n}\n", "{\n  inherit (import ./x.nix) b;\n}\n"),
        ("{\n  # the last\n  web = { };\n}\n", "{}\n"),
        ("{ web = { }; }\n", "{ }\n"),
        ("{\n  web = { };\n\n  b = 1;\n}\n", "{\n  b = 1;\n}\n"),
        ("{\n  # of all\n\n  # of it\n  web = { };\n\n  b = 1;\n}\n", "{\n  # of all\n\n  b = 1;\n}\n"),
        ("{\n  b = 1; /* x */\n  /* of\n     it */\n  web = { }; # why\n}\n", "{\n  b = 1; /* x */\n}\n"),
        ("{\n  b = {\n    # x\n  };\n  web.a = 1;\n  web.b = 2;\n}\n", "{\n  b = {\n    # x\n  };\n}\n"),
        ("{\r\n\tb = 1;\r\n\r\n\t# caf\xe9\r\n\tweb = { };\r\n}\r\n", "{\r\n\tb = 1;\r\n}\r\n"),
    ],
)  # fmt: skip
def test_an_entry_of_whatever_shape_goes_and_nothing_else(source: str, left: str) -> None:
    assert NixText("f", source.encode("latin-1")).remove(("web",)) == left.encode("latin-1")


@pytest.mark.parametrize("source", ["{ web = mk { }; a = (import ./x) // { }; } // more", "mapAttrs f { web = 1; }"])
def test_an_entry_that_is_not_written_out_is_not_removed(source: str) -> None:
    with pytest.raises(CannotEdit, match=r"(web\.)?x does not exist|web does not exist|not written here"):
        NixText("f", source.encode()).remove(("web", "x") if "mk" in source else ("web",))


def test_a_further_host_looks_like_those_that_are_there() -> None:
    source = (REFERENCE / "hosts.nix").read_bytes()
    added = NixText("hosts.nix", source).add(("new",), ["{", '  hostname = "new";', "}"])
    assert added == source.removesuffix(b"}\n") + b'\n  new = {\n    hostname = "new";\n  };\n}\n'


def test_latin_1_and_carriage_returns_stay() -> None:
    source = b'{\r\n  # caf\xe9\r\n  dev = { publicKey = "a"; }; # \xfc\r\n}\r\n'
    assert NixText("f", source).set(KEY, '"b"') == source.replace(b'"a"', b'"b"')


@pytest.mark.parametrize(
    ("name", "written"), [("dev", "dev"), ("a-b'c", "a-b'c"), ("in", '"in"'), ('a"${b}', '"a\\"\\${b}"')]
)
def test_names(name: str, written: str) -> None:
    assert attribute_name(name) == written

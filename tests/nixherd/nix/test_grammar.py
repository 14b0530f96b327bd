"""The grammars that there are make the same tree: 0.1 of PyPI, and 0.3 of nixpkgs, which has more of Nix's forms.

The digest is of both; another grammar that makes another one has to be looked at before pyproject.toml admits it.
"""

import hashlib

from nixherd.nix.syntax import parse, walk

TEXT = b"""# a comment
{ config, lib ? null, pkgs, ... } @ inputs: let
  inherit (lib) mkIf mkOption;
  "quoted.name" = 1.5e3; a.b.${config.c}."d e" = -2; path = ./hosts/web.nix; home = ~/x; search = <nixpkgs/nixos>;
  uri = https://example.org/a?b=c; plain = x: y: x // y ++ [ 1 "two" ''three ${toString 3}
    ''${not} ''' ''\\n'' (f x) { } rec { p = q; } ];
  inherit (inputs) "web01" db;
  logic = a -> b || c && (!d == e) != (f < g); less = h <= i || j >= k || l > m; has = s ? t."u";
in
  with lib; assert config ? x; if a.b or c then { x = let y = 1; in y; } else throw "no \\"${x}\\" \xc3\xa4"
"""
TRAILING = b"{ a, b, }: { x = a |> b; }\n"
DIGESTS = [
    "bf3fa7671caef8edfd7245bf327cd95511708cc192cb225678b32054e9430928",
    "2ab1bf107d79121034730ffbab3014be8268a6de50c0763ef7b857487abf0f39",
]


def shape(source: bytes) -> str:
    """A digest of what the tree has, but for the commas: whether a last one is one is what grammars differ in."""
    nodes = [node for node in walk(parse(source)) if node.type != ","]
    assert not nodes[0].has_error
    return hashlib.sha256(repr([(node.type, node.start_byte, node.end_byte) for node in nodes]).encode()).hexdigest()


def test_the_tree_is_what_it_is_known_to_be() -> None:
    assert [shape(TEXT), shape(TRAILING)] == DIGESTS

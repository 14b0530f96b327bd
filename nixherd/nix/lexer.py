"""Forms of Nix that its grammar for tree-sitter does not know, put into ones that it does, no byte of which moves.

A comma behind the last name of a function's arguments becomes a blank, a pipe operator an implication of the same
length, an `inherit` of nothing becomes blanks; so does a quote that begins a text. Only a syntax tree is made of this:
a file's texts are its own.
"""

import re
from collections.abc import Iterator

# As Nix's own lexer (src/libexpr/lexer.l) has them, as far as anything here could stand in them.
_TOKEN = re.compile(
    rb"""
    (?P<blank> \# [^\n\r]* | /\* .*? \*/ | [ \t\r\n]+ )
  | (?P<uri> [A-Za-z][A-Za-z0-9+.-]* : [A-Za-z0-9%/?:@&=+$,_.!~*'-]+ )
  | (?P<opened> \$?\{ ) | (?P<indented> '' ) | (?P<quoted> " )
  | [A-Za-z_][A-Za-z0-9_'-]* | \|\| | \|> | <\| | .
    """,
    re.VERBOSE | re.DOTALL,
)
_QUOTED = re.compile(rb'(?:[^"\\$]|\\.|\$[^{"\\]|\$(?=["\\]))*', re.DOTALL)
_INDENTED = re.compile(rb"(?:[^'$]|\$[^{']|\$(?=')|''\$|'''|''\\.|'(?!'))*", re.DOTALL)
_NOT_LINE_ENDS = re.compile(rb"[^\r\n]")
Token = tuple[str, int, int]
"""as it is written; where it begins and ends"""


def known_forms(source: bytes) -> bytes:
    """Return a text of the same length and lines that the grammar knows, as far as Nix itself would take `source`."""
    result = bytearray(source)
    before: Token = ("", 0, 0)
    inherit, depth = None, 0
    for word, start, end in _tokens(source):
        if word == "}" and before[0] == ",":
            result[before[1] : before[2]] = b" "
        elif word in ("|>", "<|"):
            result[start:end] = b"->"
        elif word == "''" and source[end : end + 1] == b"'" != source[end + 1 : end + 2]:
            result[end : end + 1] = b" "  # a text that begins with one, which the grammar takes for an escaped one
        if word == "inherit":
            inherit, depth = start, 0
        elif inherit is not None:
            depth += (word == "(") - (word == ")")
            if word == ";" and depth == 0:
                result[inherit:end] = _NOT_LINE_ENDS.sub(b" ", source[inherit:end])
            if depth == 0 and word != ")":
                inherit = None
        before = (word, start, end)
    return bytes(result)


def _tokens(source: bytes) -> Iterator[Token]:
    """Yield what means something, without blanks; of a text only its ends, and what it interpolates."""
    inside: list[str] = []
    position = 0
    while position < len(source):
        if inside and inside[-1] != "opened":
            is_quoted = inside[-1] == "quoted"
            found = (_QUOTED if is_quoted else _INDENTED).match(source, position)
            assert found is not None, "it matches nothing as well"
            position = found.end()
            if source.startswith(b"${", position):
                inside.append("opened")
                position += 2
                yield "${", position - 2, position
            else:
                inside.pop()
                start, position = position, min(position + (1 if is_quoted else 2), len(source))
                yield source[start:position].decode("latin-1"), start, position
            continue
        token = _TOKEN.match(source, position)
        assert token is not None, "it matches any byte"
        position, kind = token.end(), token.lastgroup
        if kind in ("opened", "indented", "quoted"):
            inside.append(kind)
        elif token[0] == b"}" and inside:
            inside.pop()
        if kind != "blank":
            yield token[0].decode("latin-1"), token.start(), position

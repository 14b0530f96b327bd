"""Fleets' Nix files as people write them: comments, line ends, odd indentation, strings with `${}`, any shape."""

from dataclasses import dataclass

from hypothesis import strategies as st

NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("in", "or", "if", "let", "rec", "then", "else", "with", "assert", "inherit", "x")
)
_TEXTS = [
    *(
        '"plain"',
        '"with \\" quote and \\${no} hole"',
        "''\n      indented ''${not} a hole\n      }; dev = {\n    ''",
        "42",
        "true",
    ),
    *('[1 2 "three; four"]', "./hosts/some/file.nix", '"${x}/of/it"', "{ a.b = 1; c = { }; }", '"ünïcödé ☃"', "null"),
    'rec { a = "1"; b = a; }',
]
VALUES = st.sampled_from(_TEXTS)
COMMENTS = st.sampled_from(
    ["", '# a comment; publicKey = "no";', "/* dev = { publicKey = 1; }; */", "# ünïcödé { ] ''", "#"]
)
SPACES = st.sampled_from(["", " ", "  ", "\t", "    "])


@dataclass(frozen=True)
class Sample:
    """A file in which `dev.publicKey` is `old`, written as `before` + value + `after`."""

    before: bytes
    value: bytes
    after: bytes

    @property
    def source(self) -> bytes:
        return self.before + self.value + self.after


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """hosts.nix with an entry `dev` whose publicKey is a string, in any of the ways to write that."""
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    indent = draw(st.sampled_from(["  ", "\t", "    ", ""]))

    used = {1: {"dev", "other"}, 2: {"publicKey", "user"}}

    def bindings(depth: int) -> list[str]:
        lines = []
        for name in draw(st.lists(NAMES, max_size=3, unique=True)):
            if name in used[depth]:
                continue
            used[depth].add(name)
            comment = draw(COMMENTS)
            if comment:
                lines.append(indent * depth + comment)
            equals = f"{draw(SPACES)}={draw(SPACES)}"
            lines.append(f"{indent * depth}{name}{equals}{draw(VALUES)}{draw(SPACES)};{draw(SPACES)}{draw(COMMENTS)}")
        return lines

    mark, hole = "@@MARK@@", draw(st.sampled_from(['"placeholder"', "''\n  old''", '"a" + "b"', '"${x}"']))
    key = f"publicKey{draw(SPACES)}={draw(SPACES)}{mark}{draw(SPACES)};"
    own = [*bindings(2), indent * 2 + key, *bindings(2)]
    shape = draw(st.sampled_from(["set", "dotted", "quoted", "let", "merge", "oneline", "rec"]))
    if shape == "dotted":
        entry = [f"{indent}dev.{key}", f'{indent}dev.user = "x";']
    elif shape == "oneline":
        entry = [f"{indent}dev = {{ a = 1; {key} }};"]
    else:
        name = '"dev"' if shape == "quoted" else "dev"
        opening = "rec {" if shape == "rec" else "{"
        entry = [f"{indent}{name} = {opening}", *own, f"{indent}}};"]
    lines = [*bindings(1), *entry, *bindings(1)]
    head, tail = 'let x = "X"; in ', ""
    if shape == "let":
        head, tail = 'let x = "X"; all = {', "}; in all"
    elif shape == "merge":
        head, tail = 'let x = "X"; in { other = 1; } // {', "}"
    else:
        head, tail = head + "{", "}"
    text = newline.join([draw(COMMENTS), head, *lines, tail, draw(COMMENTS), ""])
    text = text.replace("\r\n", "\n").replace("\n", newline)
    before, after = text.split(mark)
    return Sample(before.encode(), hole.replace("\n", newline).encode(), after.encode())

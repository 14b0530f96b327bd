"""Age keys and `.sops.yaml` files for tests: the same key pair for the same name, no secret of anybody's."""

import hashlib
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import strategies as st

from nixherd.ssh.age import identity_of, recipient_of
from nixherd.trust.secrets.keys import Recipient, age


@dataclass(frozen=True)
class Key:
    """A machine's or a person's: SSH and age halves."""

    private_openssh: str
    public: str
    identity: str
    recipient: str

    @property
    def age(self) -> Recipient:
        return age(self.recipient)


@cache
def key(name: str) -> Key:
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return Key(pem, f"{public} root@{name}", identity_of(pem), recipient_of(public))


PEOPLE = ("admin", "other", "doc1", "igp")


@st.composite
def configurations(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A `.sops.yaml`, as people write it, and the numbers of its rules."""
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    step = draw(st.sampled_from(["  ", "    "]))
    dash = draw(st.sampled_from([step, ""]))
    anchored = draw(st.booleans())
    comment = draw(st.sampled_from(["", " # ünïcödé, age1 and - a dash", "   #x"]))
    lines = [draw(st.sampled_from(["# who may what", "---", "", "%YAML 1.1\n---"]))]
    listed = anchored or draw(st.booleans())
    if listed:
        lines.append("keys:")
        for name in PEOPLE:
            style = "anchor" if anchored else draw(st.sampled_from(["behind", "above"]))
            if style == "above":
                lines += [f"{dash}# {name}", f"{dash}- {key(name).recipient}"]
            else:
                head = f"&{name} " if style == "anchor" else ""
                lines.append(f"{dash}- {head}{key(name).recipient}{f' # {name}' if style == 'behind' else comment}")
    lines += [draw(st.sampled_from(["", "# rules", "stores:\n  yaml:\n    indent: 2"])), "creation_rules:"]
    count = draw(st.integers(1, 4))
    for number in range(count):
        lines.append(f"{dash}# rule {number}")
        quote = draw(st.sampled_from(["'", '"', ""]))
        lines.append(f"{dash}- path_regex: {quote}^f{number}[.]yaml${quote}{draw(st.sampled_from(['', comment]))}")
        who = draw(st.lists(st.sampled_from(PEOPLE), min_size=1, unique=True))
        lines += _rule(draw, dash + "  ", step, who, anchored, comment)
        if draw(st.booleans()):
            lines.append("")
    text = "\n".join([*lines, draw(st.sampled_from(["", "# the end"])), ""])
    return text.replace("\n", newline), list(range(1, count + 1))


def _rule(draw: st.DrawFn, pad: str, step: str, who: list[str], anchored: bool, comment: str) -> list[str]:
    keys = [key(name).recipient for name in who]
    words = [f"*{name}" for name in who] if anchored else keys
    shape = draw(st.sampled_from(["list", "flow", "groups", "flowgroups", "comma", "quoted", "folded", "multiflow"]))
    match shape:
        case "comma":
            return [f"{pad}age: {','.join(keys)}{comment}"]
        case "quoted":
            return [f'{pad}age: "{", ".join(keys)}"']
        case "folded":
            return [f"{pad}age: >-", *(f"{pad}{step}{word}," for word in keys[:-1]), f"{pad}{step}{keys[-1]}"]
        case "flow":
            return [f"{pad}age: [{', '.join(words)} ]{comment}"]
        case "multiflow":
            return [f"{pad}age: [", ",\n".join(f"{pad}{step}{word}" for word in words), f"{pad}]"]
        case "flowgroups":
            return [f"{pad}key_groups: [{{age: [{', '.join(words)}]}}]"]
        case "list":
            return [f"{pad}age:", *(f"{pad}{step}- {word}{comment}" for word in words)]
    return [f"{pad}key_groups:", f"{pad}- age:", *(f"{pad}{step}- {word}{comment}" for word in words)]

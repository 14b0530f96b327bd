"""What keys are called in `.sops.yaml`: by anchors and comments. A heading is nobody's name.

A comment right above an entry is its name or a note of it, unless it is a heading: of more than this entry, or of
people, hosts and the like.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from nixherd.trust.secrets.keys import FIELDS, is_key, value_of
from nixherd.trust.secrets.yaml_lines import Entry, Lines, entries_of
from nixherd.trust.secrets.yaml_tree import Node, Tree


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_HOSTS = _set(
    "host hosts hostkey hostkeys machine machines server servers srv system systems sys node nodes nixos device devices"
    " computer computers vm vms guest guests laptop laptops desktop desktops workstation workstations router routers"
    " client clients infra infrastructure homelab fleet cluster clusters"
)
_PEOPLE = _set(
    "people person persons user users usr admin admins administrator administrators human humans operator operators"
    " team member members personal owner owners developer developers maintainer maintainers"
)
_OTHERS = _set(
    "key keys recipient recipients group groups others everyone everybody yubikey yubikeys backup backups recovery"
    " master age pgp gpg ci production staging"
)
_KINDS = _HOSTS | _PEOPLE | _OTHERS
_OF_RULES = _KINDS | {"rules", "secrets", "files"}
_COLLECTIVE = ("people", "team", "personal", "infra", "infrastructure", "homelab", "fleet", "everyone", "everybody")
_LONGEST_HEADING = 4  # words
_DECORATED = re.compile(r"^[-=#*~_]{2,}|[-=#*~_]{2,}$|[=#*~:]$")
_WORDS = re.compile(r"[^\W_]+")
_COMMENTED_OUT = re.compile(r"-\s+\S|&\S+\s+\S|.*age1[02-9ac-hj-np-z]{8}")
_OF_CLOUDS = ("arn", "role", "resource_id", "key_id", "vaultUrl", "key", "version")


def key_names(text: str, tree: Tree) -> dict[str, str]:
    """Return what each key is called, by its text: anchors before comments, the first of several."""
    lines = Lines(text)
    anchors: dict[str, str] = {}
    comments: dict[str, str] = {}
    for node in tree.root.walk():
        if node.anchor and is_key(node.value):
            anchors.setdefault(value_of(node.value or ""), node.anchor)
        if node.items is None and node.pairs is None:
            continue
        for entry in listed(lines, node):
            if is_key(entry.node.value) and entry.name:
                comments.setdefault(value_of(entry.node.value or ""), entry.name)
    return {**comments, **anchors}


def listed(lines: Lines, node: Node) -> list[Entry]:
    """Return the entries of a list or a mapping, with the comments that are theirs."""
    entries = entries_of(lines, node, is_heading)
    # what stands above `age:` is about the rule
    return [
        replace(each, key=None, note="") if each.key in FIELDS or each.key in _OF_CLOUDS else each for each in entries
    ]


def is_heading(comment: str, entry: Entry, follower: Entry | None) -> bool:
    """Tell whether a comment above an entry is about more than that, such as the one that follows."""
    words = _WORDS.findall(comment.lower())
    if not words or _DECORATED.search(comment) or _COMMENTED_OUT.match(comment):
        return True
    is_of_kind = len(words) <= _LONGEST_HEADING and words[-1] in _KINDS
    name = entry.node.anchor or entry.key or entry.behind
    # behind an entry without another name, one that has its name does not take part in the comment
    follows = follower is not None and (bool(name) or not follower.name)
    if name and _mentions(words, name):
        return follows and is_of_kind and _is_plural(words[-1])
    if is_of_kind and (_is_plural(words[-1]) or len(words) == 1):
        return True
    if follows:
        return True
    # "Maschinen", above an entry that has another name
    return bool(name) and len(words) == 1 and comment[:1].isupper()


def is_rules_heading(comment: str, entry: Entry, follower: Entry | None) -> bool:
    """Tell whether a comment above a rule is about more rules than that."""
    words = _WORDS.findall(comment.lower())
    if not words or _DECORATED.search(comment) or _COMMENTED_OUT.match(comment):
        return True
    if len(words) <= _LONGEST_HEADING and words[-1] in _OF_RULES:
        return True
    path = entry.node.get("path_regex")
    names = _WORDS.findall((path.value or "").lower() if path else "")
    return follower is not None and not any(word in names for word in words)


def _is_plural(word: str) -> bool:
    return word.endswith("s") or word in _COLLECTIVE


def _mentions(words: Sequence[str], name: str) -> bool:
    parts = [part for part in _WORDS.findall(name.lower()) if part not in _KINDS]
    return bool(parts) and all(part in words for part in parts)


# Where hosts are, and what a new one is to be called


def is_of_hosts(label: str) -> bool:
    """Tell whether a heading, a name or a mapping's key is about hosts."""
    return any(word in _HOSTS for word in _WORDS.findall(label.lower()))


def is_of_people(label: str) -> bool:
    words = _WORDS.findall(label.lower())
    return any(word in _PEOPLE for word in words) and not any(word in _HOSTS for word in words)


def place_of(entries: Sequence[Entry], hosts: Iterable[int]) -> int:
    """Return the number of entries above which a new host's comes in; `hosts` are the indices of those that are known.

    It comes behind the last host of those that stand together, otherwise below a heading of hosts, never below another.
    """
    sections = _sections(entries)
    known = set(hosts) or {index for index, entry in enumerate(entries) if is_of_hosts(entry.name)}
    if known:
        most = max(reversed(sections), key=lambda section: len(known & set(section)))
        return max(known & set(most)) + 1
    for section in reversed(sections):
        if is_of_hosts(entries[section[0]].heading):
            return section[-1] + 1
    headed = [section for section in sections if entries[section[0]].heading]
    if not headed:
        return len(entries)
    return headed[0][0]


def _sections(entries: Sequence[Entry]) -> list[list[int]]:
    sections: list[list[int]] = []
    for index, entry in enumerate(entries):
        if not sections or entry.is_apart or entry.heading:
            sections.append([])
        sections[-1].append(index)
    return sections


def like_others(host_id: str, others: Mapping[str, str], around: Sequence[str]) -> str:
    """Return a name for a host as others have theirs: `others` by their ids, `around` all names of the list.

    `host_web`, `web-server` and the like; the id itself where nothing says so.
    """
    habits = Counter(habit for other, name in others.items() if (habit := _habit(other, name)) is not None)
    if habits:
        (before, behind), count = habits.most_common(1)[0]
        words = _WORDS.findall(f"{before} {behind}".lower())
        if count > 1 or not words or all(word in _HOSTS | _OTHERS for word in words):
            return f"{before}{host_id}{behind}"
        return host_id
    if not others and (kinds := [part for name in around if (part := _kind_of(name))]):
        before, behind = Counter(kinds).most_common(1)[0][0]
        return f"{before}{host_id}{behind}"
    return host_id


def _habit(host_id: str, name: str) -> tuple[str, str] | None:
    """Return what stands before and behind an id in a name, where - and _ are the same."""
    place = re.sub(r"[-_.]", "_", name.lower()).find(re.sub(r"[-_.]", "_", host_id.lower()))
    if place < 0:
        return None
    before, behind = name[:place], name[place + len(host_id) :]
    if (before and before[-1].isalnum()) or (behind and behind[0].isalnum()):
        return None
    return before, behind


def _kind_of(name: str) -> tuple[str, str] | None:
    if (found := re.match(r"([A-Za-z]+)[-_.]+(?=.)", name)) and found[1].lower() in _HOSTS:
        return found[0], ""
    if (found := re.search(r"(?<=.)[-_.]+([A-Za-z]+)$", name)) and found[1].lower() in _HOSTS:
        return "", found[0]
    return None

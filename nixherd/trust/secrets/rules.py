"""Who may read a secret file, by `.sops.yaml`: its creation rules, as sops reads them (config/config.go). Pure.

A path_regex is an expression of Go's regexp, which is RE2's syntax but for a few words; the first rule that matches is
a file's, and which that is depends on the engine.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any

import re2

from nixherd.trust.secrets import keys
from nixherd.trust.secrets.key_names import key_names
from nixherd.trust.secrets.keys import Group, Recipient, named_key
from nixherd.trust.secrets.rules_refused import integer, require_taken
from nixherd.trust.secrets.yaml_tree import compose, load_yaml, require_merged

CONFIG, RULES = ".sops.yaml", "creation_rules"
_SHOWN = 20  # characters of what is not a number

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
# Classes that Go knows by more names than RE2, and sizes of programs, which each counts for itself.
_ONLY_HERE = re.compile(r"invalid character class range: \\[pP]|pattern too large")
_WHAT_IS_ENCRYPTED = (
    *("unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex"),
    *("unencrypted_comment_regex", "encrypted_comment_regex"),
)
_LISTS = ("age", "pgp", "kms", "gcp_kms", "hckms", "azure_keyvault")  # of a rule without key groups
_ESCAPED = re.compile(r"\\Q.*?(?:\\E|\Z)|\\(.)", re.DOTALL)
# ASCII but letters, digits, `_`, `/` and `-`; as a negated class with all beyond ASCII it takes 4 ms to compile
_MAY_MEAN_MORE = re.compile(r"([\x00-,.:-@\[-^`{-\x7f])")


@dataclass(frozen=True, slots=True)
class Rule:
    """A creation rule: its key groups in their order, and how many of them a file takes (1 for one group).

    `problem` says why it cannot be followed here, or by sops.
    """

    number: int
    path_regex: str | None
    groups: tuple[Group, ...]
    threshold: int = 1
    problem: str | None = None

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """Everybody in any group, each once."""
        return tuple(dict.fromkeys(chain.from_iterable(self.groups)))

    def matches(self, path: str) -> bool | None:
        """Whether the rule matches; None where that cannot be told here. `path` is relative to its directory."""
        if self.path_regex is None:
            return True
        expression = _compiled(self.path_regex)
        return None if isinstance(expression, Unknown) else expression.search(path) is not None

    def is_named_after(self, host_id: str) -> bool:
        """Whether a host's id is in its path_regex, as a whole word: dev is not dev2."""
        return re.search(rf"(?<![\w-]){re.escape(host_id)}(?![\w-])", self.path_regex or "") is not None

    def opens_to(self, keys: Collection[Recipient]) -> bool:
        """Whether these keys alone decrypt its files: they are in as many key groups as a file takes."""
        return sum(not keys_of_group.isdisjoint(keys) for keys_of_group in map(set, self.groups)) >= self.threshold

    def not_alone(self, host_id: str) -> str:
        """What is to be known of a host whose keys do not decrypt its files alone."""
        what = f"{self.label} takes keys of {self.threshold} groups together, and {host_id} is in fewer"
        return f"{what}: its key alone opens none of that rule's files"

    @property
    def label(self) -> str:
        return f"rule {self.number}" + (f" ({self.path_regex})" if self.path_regex else " (every file)")


@dataclass(frozen=True, slots=True)
class Unknown:
    """What cannot be told here, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Rules:
    """The whole configuration. `names` is what an anchor or a comment calls a recipient, by its value."""

    rules: tuple[Rule, ...]
    names: Mapping[str, str] = field(default_factory=dict)

    def rule_of(self, path: str) -> Rule | Unknown | None:
        """Return the first rule that matches, as sops does; Unknown where an earlier one cannot be judged here."""
        if not path.isascii() and any("\ud800" <= letter <= "\udfff" for letter in path):
            return Unknown("its name is not UTF-8")
        for rule in self.rules:
            matches = rule.matches(path)
            if matches is None:
                return Unknown(f"{rule.label}: {rule.problem}")
            if matches:
                return rule
        return None

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """Everybody whom a rule names, each once."""
        return tuple(dict.fromkeys(recipient for rule in self.rules for recipient in rule.recipients))

    @property
    def known(self) -> tuple[Recipient, ...]:
        """Everybody whom a rule names, and those who have a name only: whom the list of keys has and no rule."""
        values = {recipient.value for recipient in self.recipients}
        others = (value for value in self.names if value not in values)
        return (*self.recipients, *(key for value in others if (key := named_key(value))))


def path_regex_of(path: str) -> str:
    """Return the path_regex for one file alone, whose path is as rules see it."""
    return f"^{_MAY_MEAN_MORE.sub(lambda found: chr(92) + found[0], path)}$"


@lru_cache(64)  # a run looks at the same text again and again, and edits prove what they have made
def parse_rules(text: str) -> Rules:
    """ValueError says what is wrong, and in which line."""
    require_merged(text)
    document = load_yaml(text)
    if not isinstance(document, Mapping) or not isinstance(document.get(RULES), list):
        remedy = "write one, of `- path_regex: …` with keys (docs/secrets.md)"
        raise ValueError(f"the list {RULES} is missing; sops would find no rule for any file; {remedy}")
    found = tuple(_rule(number, entry) for number, entry in enumerate(document[RULES], 1))
    tree = compose(text)
    require_taken(text, tree)
    return Rules(found, key_names(text, tree))


def _rule(number: int, entry: Any) -> Rule:
    where = f"rule {number}"
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} is not a mapping; write `- path_regex: …` with `age: …` or `key_groups: …` below it")
    try:
        pattern = _text(entry, "path_regex") or None
        expression = _compiled(pattern or "")
        groups = tuple(_groups(entry))
        threshold = _threshold(entry, len(groups))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    problem = expression.why if isinstance(expression, Unknown) else _problem(entry, groups, threshold)
    return Rule(number, pattern, groups, threshold, problem)


@lru_cache(1024)
def _compiled(pattern: str) -> Any:
    """Return the expression, or Unknown. ValueError for what sops refuses."""
    try:
        compiled = re2.compile(pattern, _OPTIONS)
    except re2.error as error:
        why = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        if _ONLY_HERE.search(why):
            return Unknown(f"only sops can tell what its path_regex matches ({why}); write it in another way")
        raise ValueError(f"path_regex {pattern!r} is not a regular expression: {why}") from None
    if any(found[1] == "C" for found in _ESCAPED.finditer(pattern)):
        raise ValueError(f"path_regex {pattern!r} is not a regular expression: invalid escape sequence: \\C")
    return compiled


def _threshold(entry: Mapping[str, Any], groups: int) -> int:
    given = entry.get("shamir_threshold") or "0"
    number = integer(given) if isinstance(given, str) else None
    if number is None:
        raise ValueError(f"shamir_threshold {str(given)[:_SHOWN]!r} is not a number of key groups")
    return (number or groups) if groups > 1 else 1


def _problem(entry: Mapping[str, Any], groups: Sequence[Group], threshold: int) -> str | None:
    """Why sops does not encrypt by the rule."""
    if len(chosen := [name for name in _WHAT_IS_ENCRYPTED if entry.get(name)]) > 1:
        return f"it has {' and '.join(chosen)}, and sops takes one of these"
    if len(groups) > 1 and not all(groups):
        return f"key group {[bool(group) for group in groups].index(False) + 1} is empty, and sops refuses that"
    if len(groups) > 1 and not 2 <= threshold <= len(groups):
        return f"shamir_threshold {threshold} of {len(groups)} key groups: sops takes 2 to {len(groups)}"
    if not entry.get("key_groups") and (name := next((name for name in _LISTS if _has_gap(entry.get(name))), None)):
        return f"{name} has nothing before, between or behind a comma of its list, and sops refuses that"
    return keys.unknown_because(chain.from_iterable(groups))


def _has_gap(value: Any) -> bool:
    """Whether a list of keys, which sops joins by commas, has an empty word then; it drops those of a text."""
    words = ",".join(value) if isinstance(value, list) else ""
    return bool(words) and not all(word.strip() for word in words.split(","))


def _groups(entry: Mapping[str, Any]) -> Iterator[Group]:
    groups = entry.get("key_groups") or []
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise ValueError("key_groups is not a list of mappings")
    if groups:
        yield from (tuple(dict.fromkeys(group_keys(group))) for group in groups)
        return
    group = tuple(dict.fromkeys(_of_rule(entry)))
    if group:
        yield group


def group_keys(group: Mapping[str, Any]) -> Iterator[Recipient]:
    """The keys of a key group, those first that it takes in by `merge`."""
    for each in _mappings(group, "merge"):
        yield from group_keys(each)
    for text in _texts(group, "age"):
        yield from keys.age_keys(text)
    yield from map(keys.pgp, _texts(group, "pgp"))
    for each in _mappings(group, "kms"):
        context = each.get("context") or {}
        if not isinstance(context, Mapping):
            raise ValueError("kms: context is not a mapping")
        pairs = {str(key): str(value or "") for key, value in context.items()}
        yield keys.kms(_text(each, "arn"), _text(each, "role"), pairs, _text(each, "aws_profile"))
    yield from (keys.gcp_kms(_text(each, "resource_id")) for each in _mappings(group, "gcp_kms"))
    yield from (keys.hckms(_text(each, "key_id")) for each in _mappings(group, "hckms"))
    for each in _mappings(group, "azure_keyvault"):
        yield keys.azure(_text(each, "vaultUrl"), _text(each, "key"), _text(each, "version"))
    yield from map(keys.vault_uri, _texts(group, "hc_vault"))


def _of_rule(entry: Mapping[str, Any]) -> Iterator[Recipient]:
    """The keys of a rule without key groups: texts with commas between them, or lists."""
    yield from keys.age_keys(",".join(_words(entry, "age")))
    yield from map(keys.pgp, _words(entry, "pgp"))
    profile = _text(entry, "aws_profile")
    yield from (keys.kms_arn(word, profile) for word in _words(entry, "kms"))
    yield from (keys.gcp_kms(word.replace(" ", "")) for word in _words(entry, "gcp_kms"))
    yield from (keys.hckms(word.strip()) for word in _words(entry, "hckms"))
    yield from map(keys.azure_url, _words(entry, "azure_keyvault"))
    yield from map(keys.vault_uri, _words(entry, "hc_vault_transit_uri"))


def _words(entry: Mapping[str, Any], name: str) -> list[str]:
    value = entry.get(name)
    texts = [value] if isinstance(value, str) else _texts(entry, name)
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]


def _texts(entry: Mapping[str, Any], name: str) -> Sequence[str]:
    value = entry.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name} is neither a text nor a list of texts")
    return value


def _mappings(entry: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    value = entry.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise ValueError(f"{name} is not a list of mappings")
    return value


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is not a text")
    return value or ""

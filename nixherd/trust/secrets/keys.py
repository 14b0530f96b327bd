"""Who may decrypt: recipients of every kind that sops knows, as sops itself compares them. Pure.

sops compares keys by a text, its `ToString` (kms/keysource.go and its siblings): two keys are the same exactly if that
is the same. A fingerprint in small letters and in capitals are two.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from nixherd.base.ssh_keys import parse_public_key
from nixherd.ssh.age import is_bech32, is_recipient

_SSH_TYPES = ("ssh-ed25519", "ssh-rsa")
_OF_AGE = ("age1", *(f"{type} " for type in _SSH_TYPES))
_BEGINNINGS = (*_OF_AGE, "arn:", "projects/", "https://")
_SHOWN = 12  # characters of a key that nobody gave a name
_PLUGIN = re.compile(r"age1(?P<name>[a-z0-9+._-]+)1[02-9ac-hj-np-z]{6,}")
_POST_QUANTUM = "age1pq1"
_AZURE = re.compile(r"(https://[^/]+)/keys/([^/]+)(?:/([^/]*))?")
_VAULT_PATH = re.compile(r"/v\d+/[^/]+/[^/]+/[^/]+")
_VAULT_PREFIXED = re.compile(r"/[^/]+/v\d+/[^/]+/[^/]+/[^/]+")
_ROLE = "+arn:"
_FINGERPRINT = re.compile(
    r"(?:0[xX])?(?:[0-9A-Fa-f]{8}|[0-9A-Fa-f]{16}|[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})!?"
)
_WHOLE_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{40}")
_IDS = (8, 16)  # digits of a PGP key's id
_LONG_FINGERPRINT = 64  # digits


class Kind(StrEnum):
    """What a key is of; the value is its word in a key group of `.sops.yaml`."""

    AGE = "age"
    PGP = "pgp"
    KMS = "kms"
    GCP_KMS = "gcp_kms"
    HCKMS = "hckms"
    AZURE_KEYVAULT = "azure_keyvault"
    HC_VAULT = "hc_vault"


@dataclass(frozen=True, slots=True)
class Recipient:
    """A key that may decrypt; `value` is what sops compares. An SSH key's has the comment at its end, if it has one."""

    kind: Kind
    value: str

    def __hash__(self) -> int:
        return hash(self.value)  # which Python remembers: thousands of them are compared in sets

    @property
    def plugin(self) -> str | None:
        """The name of the age plugin that this key is for: `yubikey` of `age1yubikey1…`."""
        if self.kind is not Kind.AGE or self.value.startswith(_POST_QUANTUM):
            return None
        return found["name"] if (found := _PLUGIN.fullmatch(self.value)) else None

    @property
    def is_plugin(self) -> bool:
        """Whether some plugin may be needed, as sops before 3.12 needs one for what is post-quantum."""
        return self.kind is Kind.AGE and self.value.startswith("age1") and not self.is_x25519

    @property
    def is_ssh(self) -> bool:
        return self.kind is Kind.AGE and self.value.startswith("ssh-")

    @property
    def is_x25519(self) -> bool:
        return self.kind is Kind.AGE and self.value.startswith("age1") and self.value.count("1") == 1

    @property
    def bare(self) -> "Recipient":
        """The same key, however it is written: an SSH key without its comment, a fingerprint in capitals."""
        if self.is_ssh:
            return Recipient(self.kind, " ".join(self.value.split()[:2]))
        if self.kind is Kind.PGP:
            return Recipient(self.kind, self.value.upper().removeprefix("0X").removesuffix("!"))
        return self

    @property
    def label(self) -> str:
        """A short text for people."""
        if self.is_ssh:
            kind, key, *comment = self.value.split(maxsplit=2)
            return comment[0] if comment else f"{kind} …{key[-_SHOWN:]}"
        if self.plugin:
            return f"age1{self.plugin}1…{self.value[-_SHOWN:]}"
        if self.kind is Kind.AGE:
            return f"{self.value[:_SHOWN]}…"
        if self.kind is Kind.PGP:
            return f"pgp {self.value[-16:]}"
        return f"{self.kind} {self.value}"


FIELDS = (*Kind, "hc_vault_transit_uri")
"""the words of a rule or a key group below which keys stand"""

Group = tuple[Recipient, ...]
"""Keys each of which decrypts its group's part of a file's data key; the whole of it, if there is one group only."""


@lru_cache(4096)  # a fleet has few, in many files
def age(value: str) -> Recipient:
    """Return the age recipient that is written so."""
    return Recipient(Kind.AGE, value.strip())


def by_kind(recipients: Iterable[Recipient]) -> dict[Kind, list[str]]:
    """Return the keys' texts by their kinds, each once, in their order."""
    found: dict[Kind, list[str]] = {}
    for key in dict.fromkeys(recipients):
        found.setdefault(key.kind, []).append(key.value)
    return found


# As `.sops.yaml` writes them


def age_keys(text: str) -> list[Recipient]:
    """Return the age recipients of one text with commas between them. ValueError for what sops would refuse."""
    if not text:
        return []
    return [_checked(age(word)) for word in text.split(",")]


def _checked(key: Recipient) -> Recipient:
    if key.value.startswith("age1"):
        if not (is_recipient(key.value) if key.is_x25519 else is_bech32(key.value)):
            raise ValueError(f"{key.value} is not an age recipient: mistyped or cut off")
    elif key.value.startswith("ssh-"):
        try:
            kind = parse_public_key(key.value).type
        except ValueError as error:
            raise ValueError(f"{key.value} is not an SSH key: {error}") from None
        if kind not in _SSH_TYPES:
            raise ValueError(f"{key.value}: an SSH key that is an age recipient is {' or '.join(_SSH_TYPES)}")
    elif "PRIVATE KEY" in key.value or "SECRET-KEY" in key.value.upper():
        why = "whoever could read it has it: make a new one, and write its public half (age-keygen -y, ssh-keygen -y)"
        raise ValueError(f"a private key stands where a recipient belongs; {why}")
    else:
        raise ValueError(f"{key.value!r} is not an age recipient: they begin with age1 or ssh-")
    return key


def pgp(fingerprint: str) -> Recipient:
    return Recipient(Kind.PGP, fingerprint.replace(" ", ""))


def kms(arn: str, role: str = "", context: Mapping[str, str] | None = None, profile: str = "") -> Recipient:
    shown = ",".join(f"{key}:{value}" for key, value in sorted((context or {}).items()))
    text = f"{arn}+{role}" if role else arn
    if profile:
        return Recipient(Kind.KMS, f"{text}|{shown}|{profile}")
    return Recipient(Kind.KMS, f"{text}|{shown}" if shown else text)


def kms_arn(text: str, profile: str) -> Recipient:
    """Return the key of an ARN as a rule has it outside of key groups: with `+ROLE` behind it, if it has one."""
    text = text.replace(" ", "")
    arn, _, role = text.partition(_ROLE)
    return kms(arn, f"{_ROLE[1:]}{role}" if role else "", None, profile) if arn else kms(text, "", None, profile)


def gcp_kms(resource: str) -> Recipient:
    return Recipient(Kind.GCP_KMS, resource)


def hckms(key_id: str) -> Recipient:
    region, colon, key = key_id.strip().partition(":")
    if not (colon and region.strip() and key.strip()):
        raise ValueError(f"hckms: {key_id!r} is not REGION:KEY")
    return Recipient(Kind.HCKMS, key_id)


def azure(vault: str, key: str, version: str) -> Recipient:
    return Recipient(Kind.AZURE_KEYVAULT, f"{vault}/keys/{key}/{version}")


def azure_url(url: str) -> Recipient:
    found = _AZURE.fullmatch(url.strip())
    if found is None:
        raise ValueError(f"azure_keyvault: {url!r} is not https://VAULT/keys/KEY/VERSION")
    return azure(found[1], found[2], found[3] or "")


def vault(address: str, engine: str, key: str) -> Recipient:
    return Recipient(Kind.HC_VAULT, f"{address}/v1/{engine}/keys/{key}")


def vault_uri(uri: str) -> Recipient:
    try:
        parts = urlsplit(uri)
    except ValueError:
        parts = urlsplit("")
    if not parts.scheme or not _VAULT_PATH.search(parts.path) or _VAULT_PREFIXED.search(parts.path):
        raise ValueError(f"hc_vault: {uri!r} is not https://ADDRESS/v1/ENGINE/keys/KEY")
    words = parts.path.strip("/").split("/")
    return vault(f"{parts.scheme}://{parts.netloc}", "/".join(words[1:-2]), words[-1])


def guess(text: str) -> Recipient:
    """The recipient that stands alone, as in a list of keys, by its form."""
    text = text.strip()
    if text.startswith("arn:"):
        return kms_arn(text, "")
    if text.startswith("projects/"):
        return gcp_kms(text)
    if _FINGERPRINT.fullmatch(text.replace(" ", "")):
        return pgp(text)
    if text.startswith("https://"):
        try:
            return azure_url(text) if _AZURE.fullmatch(text) else vault_uri(text)
        except ValueError:
            pass
    return age(text)


def is_same(key: Recipient, other: Recipient) -> bool:
    """Whether two texts may be one key: a PGP key by a fingerprint, or by what of that is its id."""
    one, two = key.bare, other.bare
    if one == two or not one.kind is two.kind is Kind.PGP:
        return one == two
    short, long = sorted((one.value, two.value), key=len)
    # of versions 5 and 6 the id is the beginning (RFC 9580 §5.5.4.3)
    is_id = long.startswith(short) if len(long) == _LONG_FINGERPRINT else long.endswith(short)
    return is_id and len(short) in _IDS and len(long) > len(short)


def named(keys: Iterable[Recipient], given: str) -> list[Recipient]:
    """Return the keys that are meant by the text of one: several where it is written in several ways.

    ValueError, with them, where these are several keys.
    """
    text = "".join(given.split()) if _FINGERPRINT.fullmatch("".join(given.split())) else given
    meant = guess(text)
    is_short = meant.kind is Kind.PGP and len(meant.bare.value) < max(_IDS)  # may be a word as well
    exact = [key for key in keys if given in (key.value, key.bare.value) or key.bare == meant.bare]
    found = [key for key in keys if is_same(key, meant)] if not is_short else exact
    found = list(dict.fromkeys((*exact, *found)))
    if any(not is_same(one, two) for one in found for two in found):
        fingerprints = ", ".join(sorted({key.bare.value for key in found}))
        raise ValueError(f"{given} is the id of several keys: {fingerprints}; name one by its fingerprint")
    return found


def is_key(text: str | None) -> bool:
    """Tell whether a text looks like a recipient: an age or SSH key, a whole fingerprint, or a key of some cloud."""
    if text is None or "," in text:
        return False
    text = text.strip()
    return text.startswith(_BEGINNINGS) or bool(_WHOLE_FINGERPRINT.fullmatch(text.replace(" ", "")))


def value_of(text: str) -> str:
    """Return a key's text as sops compares it."""
    bare = text.replace(" ", "")
    return bare if _WHOLE_FINGERPRINT.fullmatch(bare) else text.strip()


def named_key(value: str) -> Recipient | None:
    """Return the age or PGP key of a text that has a name in the file; None for other kinds, which rules alone tell."""
    if _WHOLE_FINGERPRINT.fullmatch(value):
        return Recipient(Kind.PGP, value)
    return Recipient(Kind.AGE, value) if value.startswith(_OF_AGE) else None


def unknown_because(keys: Iterable[Recipient]) -> str | None:
    """Why sops itself would have to ask somebody what the key is; None where it would not."""
    for key in keys:
        if key.kind is Kind.AZURE_KEYVAULT and key.value.endswith("/"):
            return f"{key.value} has no version, which sops asks Azure for; write the version"
    return None


# As files have them


def of_entry(word: str, entry: Mapping[str, Any]) -> Recipient:
    """Return the key of an entry in a file's metadata, below the word of its kind. KeyError for what it lacks.

    ValueError where a part of it is something else than sops writes.
    """

    def text(name: str) -> str:
        return str(entry.get(name) or "")

    def needed(name: str) -> str:
        if entry.get(name) is None:
            raise KeyError(name)
        return str(entry[name])

    match word:
        case "age":
            return age(needed("recipient"))
        case "pgp":
            return Recipient(Kind.PGP, needed("fp"))
        case "kms":
            context = entry.get("context") or {}
            if not isinstance(context, Mapping):
                raise ValueError("its metadata has a kms entry whose context is not a mapping")
            pairs = {str(key): str(value or "") for key, value in context.items()}
            return kms(needed("arn"), text("role"), pairs, text("aws_profile"))
        case "gcp_kms":
            return gcp_kms(needed("resource_id"))
        case "hckms":
            return Recipient(Kind.HCKMS, needed("key_id"))
        case "azure_kv":
            return azure(needed("vault_url"), needed("name"), text("version"))
        case _:
            return vault(needed("vault_address"), text("engine_path"), needed("key_name"))


IN_FILES = ("kms", "gcp_kms", "hckms", "azure_kv", "hc_vault", "pgp", "age")
"""The words below which a file's metadata has keys, in the order in which sops tries them."""

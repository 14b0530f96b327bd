"""What the operator decrypts with: age identities, SSH keys, PGP keys; and which recipients are known to be theirs."""

import enum
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nixherd.base.errors import FleetError, Usage
from nixherd.base.files import expanded
from nixherd.base.process import run
from nixherd.base.ssh_keys import pair_of, parse_public_key
from nixherd.ssh.age import identity, recipient_of, recipient_of_identity
from nixherd.trust.secrets.environment import PLUGIN, has_gpg
from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.keys import Group, Kind, Recipient, age

USUAL = "sops/age/keys.txt"  # below XDG_CONFIG_HOME
SECRET = re.compile(r"AGE-SECRET-KEY-(?:PQ-)?1[A-Z0-9]+", re.IGNORECASE)
_PLUGIN = re.compile(r"AGE-PLUGIN-([A-Z0-9+._-]+)-1[A-Z0-9]+", re.IGNORECASE)
# A line as age takes it: nothing else may stand in it, not even a blank.
_LINE = re.compile(r"(?:AGE-SECRET-KEY-(?:PQ-)?1|AGE-PLUGIN-[A-Z0-9+._-]+-1)[A-Z0-9]+")
_LOCKED = ("-----BEGIN AGE ENCRYPTED FILE-----", "age-encryption.org/")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_SHORT_ID = 8  # digits
_TOKEN = 14  # the field of gpg's list that says where a secret key is
# Variables that sops takes keys from and that are not read here.
UNREAD = ("SOPS_AGE_KEY", "SOPS_AGE_KEY_CMD", "SOPS_AGE_SSH_PRIVATE_KEY_CMD")


class Opens(enum.Enum):
    """Whether somebody can decrypt a file."""

    YES = enum.auto()
    NO = enum.auto()
    UNKNOWN = enum.auto()


@dataclass(frozen=True)
class Identity:
    """A file of identities. `text` is what age reads, None where that is the file itself, which may have a passphrase.

    `recipients` are known to be its own; `plugins` those whose recipients cannot be told from it.
    """

    path: Path
    text: str | None
    recipients: frozenset[Recipient] = frozenset()
    plugins: frozenset[str] = frozenset()
    is_ssh: bool = False
    is_locked: bool = False

    @classmethod
    def read(cls, path: Path) -> "Identity":
        """FleetError says what is wrong with the file."""
        try:
            if not stat.S_ISREG(found := path.stat().st_mode):  # a pipe is empty when sops reads it as well
                raise FleetError(f"{path}: is not a file; name the file with your age identities or your SSH key")
            text, mode = path.read_text(errors="surrogateescape"), found & 0o777
        except FileNotFoundError:
            raise missing(path) from None
        except OSError as error:
            raise FleetError(f"{path}: cannot be read as an age identity: {error.strerror}") from None
        if mode & 0o077:
            raise FleetError(f"{path}: others may read this identity (mode {mode:04o}); chmod 600 it")
        if _PEM.search(text):
            return _of_ssh(path, text)
        if text.startswith(_LOCKED):
            return cls(path, None, is_locked=True)
        plugins = frozenset(found[1].lower() for found in _PLUGIN.finditer(text))
        if not SECRET.search(text) and not plugins:
            raise FleetError(f"{path}: holds no age identity (a line AGE-SECRET-KEY-1…)")
        return cls(path, None, frozenset(_recipients(path, text)), plugins)


def _usual() -> Path:
    """Where sops looks for identities by itself; a relative XDG_CONFIG_HOME is none, by its specification."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(given) if given.startswith("/") else expanded("~/.config").absolute()) / USUAL


def missing(path: Path) -> FleetError:
    """The error for an identity that does not exist."""
    return FleetError(f"{path}: no age identity there; make one with age-keygen, or name yours (SOPS_AGE_KEY_FILE)")


def _recipients(path: Path, text: str) -> Iterator[Recipient]:
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        try:
            if not _LINE.fullmatch(line):
                raise ValueError("is neither an identity alone nor a comment")
            if line.startswith("AGE-SECRET-KEY-1"):  # of the others the recipients cannot be told here
                yield age(recipient_of_identity(line))
        except ValueError as error:
            raise FleetError(f"{path}: line {number}: {error}, and age reads none of the file; mend it") from None


def _of_ssh(path: Path, text: str) -> Identity:
    """An SSH key: an age identity by conversion, if it is Ed25519 without a passphrase; and itself."""
    try:
        public = pair_of(text).public
        return Identity(path, identity(text) + "\n", frozenset(_of_public(public)), is_ssh=True)
    except (ValueError, FleetError) as error:
        try:  # an RSA key, or one with a passphrase, decrypts what is encrypted to it itself
            public = path.with_name(f"{path.name}.pub").read_text()
            raw = age(parse_public_key(public).bare)
        except (OSError, ValueError):
            raise FleetError(f"{path}: {error}; use an Ed25519 key or an age identity") from None
        return Identity(path, None, frozenset({raw}), is_ssh=True, is_locked=not raw.value.startswith("ssh-rsa"))


def _of_public(public: str) -> Iterator[Recipient]:
    yield age(parse_public_key(public).bare)
    yield age(recipient_of(public))


@dataclass(frozen=True)
class Operator:
    """Whoever runs it: the identity that is given, or else all that sops would find.

    `problem` is what is wrong with the identity that the environment names; it counts where it is needed.
    """

    identities: tuple[Identity, ...]
    is_given: bool
    problem: FleetError | None = None

    @classmethod
    def of(cls, given: str | os.PathLike[str] | None) -> "Operator":
        """FleetError for a useless identity that is given, Usage for what is not a path."""
        if given is not None:
            if not (isinstance(given, (str, os.PathLike)) and os.fspath(given)):
                raise Usage(f"{given!r} names no identity; write the path of its file (--identity, age_identity)")
            return cls((Identity.read(expanded(given).absolute()),), is_given=True)
        found, problem = [], None
        named, usual = os.environ.get("SOPS_AGE_KEY_FILE"), _usual()
        try:
            if named:
                found.append(Identity.read(expanded(named).absolute()))
            if usual.exists() and (not found or not usual.samefile(found[0].path)):
                found.append(Identity.read(usual))
            elif not found and not any(os.environ.get(name) for name in UNREAD):
                problem = missing(usual)
        except FleetError as error:
            problem = error
        return cls(tuple(found), is_given=False, problem=problem)

    @cached_property
    def ssh_keys(self) -> tuple[Identity, ...]:
        """Those that sops finds for SSH recipients, where no identity is given."""
        named = os.environ.get("SOPS_AGE_SSH_PRIVATE_KEY_FILE")
        places = [named, "~/.ssh/id_ed25519", "~/.ssh/id_rsa"]
        found = []
        for path in (expanded(each).absolute() for each in places if each):
            try:
                found.append(Identity.read(path))
            except FleetError:  # sops goes on without it as well
                continue
        return tuple(found)

    @cached_property
    def pgp_keys(self) -> tuple["PgpKey", ...]:
        """The secret keys that gpg has; empty where there is none, or it does not say."""
        return self._listed or ()

    @cached_property
    def _listed(self) -> tuple["PgpKey", ...] | None:
        """The same; None where it does not say."""
        if not has_gpg():
            return ()
        program = os.environ.get("SOPS_GPG_EXEC") or "gpg"
        done = run([program, "--batch", "--no-tty", "--with-colons", "--list-secret-keys"], timeout=60, check=False)
        return tuple(_secret_keys(done.stdout)) if done.status == 0 else None

    def has(self, key: Recipient) -> Opens:
        """Whether what is encrypted to a key can be decrypted, by what is known without trying."""
        bare, identities = key.bare, self.identities
        if key.is_ssh and not self.is_given:
            identities = (*identities, *self.ssh_keys)
        if any(bare in each.recipients for each in identities):
            return Opens.YES
        if key.kind is Kind.PGP:
            if any(each.is_meant_by(bare.value) for each in self.pgp_keys):
                return Opens.YES
            return Opens.UNKNOWN if self._listed is None else Opens.NO
        if key.kind is not Kind.AGE or any(each.is_locked for each in identities):
            return Opens.UNKNOWN
        if not self.is_given and any(os.environ.get(name) for name in UNREAD):
            return Opens.UNKNOWN
        has_plugin = any(key.plugin in each.plugins or (key.is_plugin and each.plugins) for each in identities)
        return Opens.UNKNOWN if has_plugin or (key.is_plugin and key.plugin is None) else Opens.NO

    def opens(self, groups: Sequence[Group], threshold: int) -> Opens:
        """Whether a file with these key groups can be decrypted."""
        found = [[self.has(key) for key in group] for group in groups]
        if sum(Opens.YES in each for each in found) >= threshold:
            return Opens.YES
        return Opens.UNKNOWN if sum({*each} != {Opens.NO} and bool(each) for each in found) >= threshold else Opens.NO

    def reads(self, file: Encrypted) -> Opens:
        """Whether a file can be decrypted, without trying; UNKNOWN where an identity is missing or useless."""
        opens = self.opens(file.groups, file.threshold)
        return Opens.UNKNOWN if opens is Opens.NO and self.problem is not None else opens

    def keeps(self, before: Encrypted, groups: Sequence[Group], threshold: int) -> Opens:
        """Whether a file still can be decrypted when it has these groups. NO only where it certainly could before.

        Who is in the same groups, of which no more are taken, can; nobody needs to be known for that.
        """
        pairs = zip(before.groups, groups, strict=False)
        is_wider = len(before.groups) == len(groups) and threshold <= before.threshold
        if is_wider and all({key.bare for key in old} <= {key.bare for key in new} for old, new in pairs):
            return Opens.YES
        after = self.opens(groups, threshold)
        if after is Opens.NO and self.opens(before.groups, before.threshold) is not Opens.YES:
            return Opens.UNKNOWN
        return after

    def is_attended(self, recipients: Collection[Recipient]) -> bool:
        """Whether a person may have to be at the terminal: for a PIN, a touch, a passphrase."""
        if any(each.plugins or each.is_locked for each in self.identities):
            return True
        if (
            not self.is_given
            and any(key.is_ssh for key in recipients)
            and any(each.is_locked for each in self.ssh_keys)
        ):
            return True
        cards = [each for each in self.pgp_keys if each.is_on_card] if any(map(_is_pgp, recipients)) else []
        return any(card.is_meant_by(key.bare.value) for card in cards for key in filter(_is_pgp, recipients))

    @property
    def kinds(self) -> frozenset[str]:
        """What its identities need of the environment, whatever the recipients."""
        return frozenset({PLUGIN} if any(each.plugins for each in self.identities) else ())


def _is_pgp(key: Recipient) -> bool:
    return key.kind is Kind.PGP


@dataclass(frozen=True, slots=True)
class PgpKey:
    """A key that can decrypt, by its fingerprint or that of the key that it belongs to."""

    fingerprint: str
    is_on_card: bool

    def is_meant_by(self, written: str) -> bool:
        """Whether a fingerprint or key id, in capitals, is this key's."""
        return len(written) >= _SHORT_ID and self.fingerprint.endswith(written)


def _secret_keys(listing: str) -> Iterator[PgpKey]:
    """What can decrypt, of gpg's list (GnuPG's doc/DETAILS): its token is `+`, a card's number, `#` for elsewhere."""
    record, token, primary = [], "#", ""
    for line in listing.splitlines():
        fields = line.split(":")
        if fields[0] in ("sec", "ssb") and len(fields) > _TOKEN:
            record, token = fields, fields[_TOKEN]
        elif fields[0] == "fpr" and record:
            primary = fields[9] if record[0] == "sec" else primary
            if "e" in record[11] and token != "#":
                yield from (PgpKey(each, token not in ("+", "")) for each in dict.fromkeys((fields[9], primary)))

"""What sops is given of the operator's environment: what the kinds of keys at hand need, and nothing else.

sops and the programs that it starts look for keys in variables and below HOME: they get a HOME of ours, with links to
the places of these kinds only. Sources: sops' README, GnuPG's, the clouds' own credential chains.
"""

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from nixherd.trust.secrets.keys import Kind, Recipient

_ALWAYS = ("PATH", "TERM", "LANG", "LC_*", "TZ", "TMPDIR", "USER", "LOGNAME", "SOPS_DECRYPTION_ORDER")
_NETWORK = ("*_PROXY", "*_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "NIX_SSL_CERT_FILE")
_DESKTOP = ("XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS")
# What is never passed on: it would change whom a file is encrypted for, or who decrypts it.
_NEVER = (
    *("SOPS_CONFIG", "SOPS_AGE_RECIPIENTS", "SOPS_PGP_FP", "SOPS_KMS_ARN", "SOPS_GCP_KMS_IDS"),
    *("SOPS_AZURE_KEYVAULT_URLS", "SOPS_VAULT_URIS", "SOPS_ENABLE_LOCAL_KEYSERVICE", "SOPS_KEYSERVICE"),
)


# Go's own, for sops: its collector of garbage takes a quarter of the time in which sops goes through hundreds of small
# files, unless it may let the heap grow to five times what is live.
_GO = {"GOGC": "400"}


@dataclass(frozen=True, slots=True)
class Need:
    """What one kind of keys needs: variables, `*` for any letters, and places below HOME."""

    variables: tuple[str, ...]
    places: tuple[str, ...] = ()
    whole_home: bool = False


PLUGIN, SSH = "plugin", "ssh"
NEEDS: Mapping[str, Need] = {
    PLUGIN: Need(("AGE_*", "PCSC*", "TPM2*", "FIDO_*", "XDG_*", *_DESKTOP), whole_home=True),
    SSH: Need(("SOPS_AGE_SSH_PRIVATE_KEY_FILE", "SOPS_AGE_SSH_PRIVATE_KEY_CMD"), (".ssh/id_ed25519", ".ssh/id_rsa")),
    Kind.PGP: Need(
        ("GNUPGHOME", "GPG_TTY", "GPG_AGENT_INFO", "SSH_AUTH_SOCK", "SOPS_GPG_EXEC", "PINENTRY_*", *_DESKTOP),
        whole_home=True,  # where its agent's sockets are depends on whether ~/.gnupg is the usual place
    ),
    Kind.KMS: Need(("AWS_*", *_NETWORK), (".aws",)),
    Kind.GCP_KMS: Need(("GOOGLE_*", "CLOUDSDK_*", "SOPS_GCP_KMS_*", *_NETWORK), (".config/gcloud",)),
    Kind.AZURE_KEYVAULT: Need(("AZURE_*", "MSI_*", "IDENTITY_*", *_NETWORK), (".azure",)),
    Kind.HC_VAULT: Need(("VAULT_*", "SOPS_HC_VAULT_ALLOWLIST", *_NETWORK), (".vault-token",)),
    Kind.HCKMS: Need(("HUAWEICLOUD_*", *_NETWORK), (".huaweicloud",)),
}


def kinds_of(recipients: Collection[Recipient]) -> frozenset[str]:
    """The words of `NEEDS` for these recipients; X25519 keys need nothing."""
    found = {str(key.kind) for key in recipients if key.kind is not Kind.AGE}
    found |= {SSH for key in recipients if key.is_ssh}
    return frozenset(found | {PLUGIN for key in recipients if key.is_plugin})


def environment(kinds: Collection[str], homes: Path, *, is_alone: bool = True) -> dict[str, str]:
    """The variables for these kinds; HOME is a directory below `homes`, which is made.

    `is_alone`: not even where HOME is the operator's, sops looks for age identities there.
    """
    names = [name for kind in kinds for name in NEEDS[kind].variables]
    chosen = {name: os.environ[name] for name in os.environ if _is_one(name, [*_ALWAYS, *names])}
    for name in _NEVER:
        chosen.pop(name, None)
    home = _home(kinds, homes)
    chosen |= {**_GO, "HOME": str(home)}
    if is_alone or home.is_relative_to(homes):
        chosen["XDG_CONFIG_HOME"] = str(home / ".config" if home.is_relative_to(homes) else homes / "config")
    if Kind.PGP in kinds and "GPG_TTY" not in chosen and os.isatty(0):
        chosen["GPG_TTY"] = os.ttyname(0)
    return chosen


def withheld(given: Mapping[str, str]) -> list[str]:
    """What of our environment could be a key for sops, and is not in `given`."""
    names = [*_NEVER, "SOPS_*", *(name for need in NEEDS.values() for name in need.variables)]
    harmless = [*_DESKTOP, *_NETWORK, "XDG_*"]
    return [name for name in os.environ if name not in given and _is_one(name, names) and not _is_one(name, harmless)]


def _is_one(name: str, patterns: Collection[str]) -> bool:
    return any(_fits(name, pattern) for pattern in patterns)


def _fits(name: str, pattern: str) -> bool:
    if pattern.startswith("*"):
        return name.endswith(pattern[1:])
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _home(kinds: Collection[str], homes: Path) -> Path:
    """A home with links to what these kinds need; the operator's where a plugin or gpg may need anything there."""
    real = Path.home()
    if any(NEEDS[kind].whole_home for kind in kinds):
        return real
    home = homes / ("-".join(sorted(kinds)) or "empty")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for place in (place for kind in kinds for place in NEEDS[kind].places):
        source, link = real / place, home / place
        if source.exists() and not link.is_symlink():
            link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            link.symlink_to(source)
    return home


def has_gpg() -> bool:
    return shutil.which(os.environ.get("SOPS_GPG_EXEC") or "gpg") is not None

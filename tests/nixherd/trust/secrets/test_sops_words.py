"""What sops said, as one line that helps: the key or file, and what to do."""

import pytest

from nixherd.trust.secrets.rules_edit import CannotEdit, remove_rules
from nixherd.trust.secrets.sops import explained
from tests.nixherd.trust.secrets.keys import key

FINGERPRINT = "F1915E73247F9295FF36AF6DFEB95845484A11F8"
DAMAGED = "it was changed without sops, and what is encrypted in it is damaged; restore it from git"
OF_GPG = (
    f'error updating one or more master keys: [failed to encrypt new data key with master key "{FINGERPRINT}": could'
    " not encrypt data key with PGP key: github.com/ProtonMail/go-crypto/openpgp error: key with fingerprint"
    f" '{FINGERPRINT}' is not available in keyring; GnuPG binary error: failed to encrypt sops data key with pgp: gpg:"
    f" {FINGERPRINT}: skipped: WHY\ngpg: [stdin]: encryption failed: WHY]\n"
)
OF_KEYS = """Failed to get the data key required to decrypt the SOPS file.

Group 0: FAILED
  age1tx30lz9ck3htrdr8zme5f9e2gwz7l6g0rqmtyechx0xsqjz4tsaq4mym72: FAILED
    - | failed to create reader for decrypting sops data key with
      | age: failed to read header: parsing age header: failed to
      | read intro: invalid armor: column limit exceeded. Did not
      | find keys in locations 'SOPS_AGE_KEY', and 'SOPS_AGE_KEY_CMD'.

Recovery failed because no master key was able to decrypt the file.
"""
OF_VALUES = "Error decrypting tree: Error walking tree: Could not decrypt value: "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{OF_VALUES}Error base64-decoding data: illegal base64 data at input byte 7\n", DAMAGED),
        (f"{OF_VALUES}Unknown datatype: foo\n", DAMAGED),
        (f"{OF_VALUES}Input string ENC[AES256_GCM,data:x] does not match sops' data format\n", DAMAGED),
        ("Cannot decrypt MAC: Error base64-decoding data: illegal base64 data at input byte 2\n", DAMAGED),
        ('parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"\n', DAMAGED),
        (OF_KEYS, DAMAGED),
        (
            OF_GPG.replace("WHY", "Unusable public key"),
            f"sops updatekeys: cannot encrypt for the PGP key {FINGERPRINT}: it is expired, revoked or not for"
            " encryption; have its owner renew it, and `gpg --import` it, or take it out:"
            f" `nixherd secrets remove-host {FINGERPRINT}`",
        ),
        (
            OF_GPG.replace("WHY", "No public key"),
            f"sops updatekeys: cannot encrypt for the PGP key {FINGERPRINT}: it is not in the keyring here;"
            f" `gpg --import` it, or take it out: `nixherd secrets remove-host {FINGERPRINT}`",
        ),
    ],
)
def test_what_helps_is_said(text: str, words: str) -> None:
    assert explained(text, "updatekeys") == words


def test_the_only_rule_is_not_taken_out() -> None:
    text = f"creation_rules:\n- path_regex: a\n  age: {key('dev').recipient}\n"
    with pytest.raises(
        CannotEdit, match=r"^\.sops\.yaml: without rule 1 it has none, .*; add another one first, or remove"
    ):
        remove_rules(text, [1])

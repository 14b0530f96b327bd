"""An age plugin for tests, `age-plugin-herdtest`: X25519 sealed boxes (C2SP's age-plugin protocol).

    python age_plugin.py --age-plugin=recipient-v1 | identity-v1

AGE_HERDTEST_LOG names a file that gets a line when it begins to decrypt and one when it ends. With AGE_HERDTEST_PIN
it asks for that PIN first, as a token does.
"""

import base64
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

NAME = "herdtest"
_CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_COLUMNS = 64


def data_of(text: str) -> bytes:
    """What is written in Bech32; its checksum is age's business."""
    words = [_CHARACTERS.index(letter) for letter in text.lower().rpartition("1")[2][:-6]]
    bits = "".join(f"{word:05b}" for word in words)
    return bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits) // 8 * 8, 8))


def say(words: str, body: bytes = b"") -> None:
    text = base64.b64encode(body).decode().rstrip("=")
    lines = [text[start : start + _COLUMNS] for start in range(0, len(text), _COLUMNS)] or [""]
    if len(lines[-1]) == _COLUMNS:
        lines.append("")
    sys.stdout.write("\n".join([f"-> {words}", *lines]) + "\n")
    sys.stdout.flush()


def stanza() -> tuple[list[str], bytes]:
    head = sys.stdin.readline()
    if not head:
        raise SystemExit(0)
    body = ""
    while True:
        line = sys.stdin.readline().rstrip("\n")
        body += line
        if len(line) < _COLUMNS:
            break
    return head.split()[1:], base64.b64decode(body + "=" * (-len(body) % 4))


def until_done() -> Iterator[tuple[list[str], bytes]]:
    while (found := stanza())[0][0] != "done":
        yield found


def wrap() -> None:
    recipients, keys = [], []
    for words, body in until_done():
        if words[0] in ("add-recipient", "add-identity"):
            data = data_of(words[1])
            recipients.append(PublicKey(data) if words[0] == "add-recipient" else PrivateKey(data).public_key)
        elif words[0] == "wrap-file-key":
            keys.append(body)
    for number, key in enumerate(keys):
        for recipient in recipients:
            say(f"recipient-stanza {number} {NAME}", SealedBox(recipient).encrypt(key))
            stanza()
    say("done")


def note(word: str) -> None:
    if log := os.environ.get("AGE_HERDTEST_LOG"):
        with Path(log).open("a") as file:
            file.write(f"{word}\n")


def unwrap() -> None:
    identities, sealed = [], []
    for words, body in until_done():
        if words[0] == "add-identity":
            identities.append(PrivateKey(data_of(words[1])))
        elif words[0] == "recipient-stanza" and words[2] == NAME:
            sealed.append((words[1], body))
    if not sealed:
        say("done")
        return
    note("begin")
    if pin := os.environ.get("AGE_HERDTEST_PIN"):
        say("request-secret", b"PIN of the token")
        words, body = stanza()
        if words[0] != "ok" or body.decode() != pin:
            say("error internal", b"wrong PIN")
            stanza()
            say("done")
            return
    else:
        time.sleep(0.02)  # a touch
    opened = set()
    for number, body in sealed:
        for identity in identities:
            try:
                key = SealedBox(identity).decrypt(body)
            except CryptoError:
                continue
            if number not in opened:
                opened.add(number)
                say(f"file-key {number}", key)
                stanza()
    note("end")
    say("done")


if __name__ == "__main__":
    unwrap() if "identity-v1" in sys.argv[-1] else wrap()

"""What was typed, as far as it can be meant at all; and a process whose standard streams may be missing."""

import os
from collections.abc import Sequence

from nixherd.errors import Usage


def require_text(words: Sequence[str]) -> None:
    """Usage for words that no file, host or program of ours has for a name: with NUL, or bytes that are no text."""
    for number, word in enumerate(words, 1):
        if "\0" in word or any("\ud800" <= character <= "\udfff" for character in word):
            raise Usage(f"argument {number} ({word!r}) is not text (a NUL, or bytes that are no UTF-8)")


def keep_streams() -> None:
    """Let no file that we open take the place of a standard stream that is closed: others would write into it."""
    while True:
        handle = os.open(os.devnull, os.O_RDWR)
        if handle > 2:
            os.close(handle)
            return
        os.set_inheritable(handle, True)

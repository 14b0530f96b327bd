"""Secrets travel on stdin and in files that only their owner can read: nowhere else while a machine is made.

Looked for are the API token, the generated host key, a file of the operator's, the operator's age identity and what a
secret file holds, in the arguments and environment of every process, and in every file that a run leaves; what it
would have found is planted first.
"""

import base64
import contextlib
import os
import re
import secrets
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nixherd.base.ssh_keys import generate_ed25519
from tests.integration.lab_driver import Lab

pytestmark = pytest.mark.slow


class Sampler(threading.Thread):
    """Notes which programs are seen with something wanted in their arguments or environment."""

    def __init__(self, needle: re.Pattern[bytes]) -> None:
        super().__init__(daemon=True)
        self.needle, self.found, self.over = needle, set[str](), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.005):
            for process in Path("/proc").glob("[0-9]*"):
                for what in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):  # it has ended
                        content = (process / what).read_bytes()
                        self.found.update(f"{what}: {match[0]!r}" for match in self.needle.finditer(content))


@contextmanager
def watched(needle: re.Pattern[bytes]) -> Iterator[set[str]]:
    sampler = Sampler(needle)
    sampler.start()
    yield sampler.found
    sampler.over.set()
    sampler.join()


def pattern(*values: bytes) -> re.Pattern[bytes]:
    """The values, their hex, and their base64 at each of its three alignments."""
    shapes = {shape for value in values for shape in (value, value.hex().encode(), value.hex().upper().encode())}
    for value in values:
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + value).rstrip(b"=")
            shapes.add(encoded[(0, 2, 3)[shift] : -1])
    return re.compile(b"|".join(map(re.escape, sorted(shapes))))


def files_with(needle: re.Pattern[bytes], *directories: Path) -> set[Path]:
    """Regular files below these directories that hold something wanted."""
    found = set()
    for directory in directories:
        for path in directory.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(path.lstat().st_mode) and needle.search(path.read_bytes()):
                    found.add(path)
    return found


def test_secrets_are_where_they_belong_and_nowhere_else(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAL_PROGRAMS", "1")  # whose arguments and environment are looked at
    content = secrets.token_urlsafe(24)
    token = lab.places.token_line().partition("=")[2]
    pair = generate_ed25519("root@dev")
    (lab.kept / "dev").mkdir(parents=True, mode=0o700)
    private, carried = lab.kept / "dev/ssh_host_ed25519_key", tmp_path / "carried"
    for path, text in {
        private: pair.private_openssh,
        private.with_suffix(".pub"): pair.public,
        carried: content,
    }.items():
        path.write_text(text)
        path.chmod(0o600)
    identity = lab.places.home / ".config/sops/age/keys.txt"
    private_key = next(line for line in identity.read_text().splitlines() if line.startswith("AGE-SECRET-KEY-1"))
    part = ["--extract", '["api_token"]', str(lab.places.fleet / "secrets/dev.yaml")]
    secret = lab.run("sops", "decrypt", *part).output.strip()
    assert len(secret) == 32
    # the line of the key that holds its private half
    needle = pattern(
        *(text.encode() for text in (token, pair.private_openssh.splitlines()[3], content, private_key, secret))
    )
    whole = ("deploys/enroll.py", "deploys/provision.py", "deploys/post_provision.py")

    with watched(needle) as seen:
        data = ("--data", f'extra_files={{"/etc/carried": "{carried}"}}')
        ended = lab.pyinfra(*("-vvv", "--debug-all", "-y", *data, "inventory.py", *whole, "--limit", "dev"))
    assert seen == set()
    assert not needle.search(ended.output.encode())
    logs = [lab.places.api_log, lab.places.lab_log]
    assert not [path for path in logs if needle.search(path.read_bytes())]
    left = [lab.places.home, lab.places.fleet, lab.places.consoles, lab.places.nix_root]
    assert files_with(needle, *left) == {identity}  # the host's key has left as well
    assert identity.stat().st_mode & 0o777 == 0o600


def test_the_search_would_have_found_them(tmp_path: Path) -> None:
    planted = [secrets.token_urlsafe(24) for _ in range(2)]
    with watched(pattern(*map(str.encode, planted))) as seen:
        subprocess.run(["sh", "-c", "sleep 1", planted[0]], env={**os.environ, "PLANTED": planted[1]}, check=True)
    assert {line.partition(":")[0] for line in seen} == {"cmdline", "environ"}
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(base64.b64encode(b"x" * number + planted[0].encode() + b" and more"))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/hex").write_bytes(planted[1].encode().hex().encode())
    assert len(files_with(pattern(*map(str.encode, planted)), tmp_path)) == 4

"""Signatures by SSH keys, as ssh-keygen(1) makes and verifies them; and what was signed in git's commits.

A cache's secret key is `NAME:` and the base64 of an ed25519 seed and public key (nix3-key-generate-secret(1)); the same
key signs for ssh-keygen. Private halves are in files of mode 0600, for as long as a signature takes.

Nothing that git says *about* commits is believed, as a repository may have replaced or grafted ones, and settings of
its own: an object is its hash, and a commit names its parents. Format: git-hash-object(1), gitformat-signature(5).
"""

import base64
import binascii
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.base.process import Completed, run

_TIMEOUT = 60.0  # seconds
_SEED = 32  # bytes


def signer(
    signature: str, payload: bytes, signers: Path, namespace: str, made: int, scratch: Path | None = None
) -> str | None:
    """Who of `signers` (a file as ssh-keygen(1) has it) signed this at that time, in seconds since the epoch; or None.

    A key counts for the namespaces and the time that the file says. What is needed in files meanwhile is in `scratch`.
    """
    at = f"-Overify-time={time.strftime('%Y%m%d%H%M%S', time.gmtime(made))}"
    with _file(signature.encode(), scratch) as file:
        options = ("-f", str(signers), "-s", str(file), at)
        found = _keygen("find-principals", *options)
        for principal in found.stdout.splitlines() if found.status == 0 else ():
            done = _keygen("verify", "-n", namespace, "-I", principal, *options, input=payload)
            if done.status == 0:
                return principal
    return None


def sign(text: str, key: str, namespace: str, scratch: Path) -> str:
    """The signature of a text by a private key in OpenSSH's form, which is in a file of `scratch` meanwhile."""
    with _file(key.encode(), scratch) as file:
        done = _keygen("sign", "-f", str(file), "-n", namespace, input=text.encode())
    if done.status or not done.stdout.startswith("-----BEGIN SSH SIGNATURE-----"):
        raise FleetError(f"ssh-keygen -Y sign: {done.stderr.strip() or f'status {done.status}'}")
    return done.stdout


def openssh_key(secret: str) -> str:
    """The private key in OpenSSH's form that a cache's secret key is. ValueError for what is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    both = _decoded(secret)
    key = Ed25519PrivateKey.from_private_bytes(both[:_SEED])
    if key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) != both[_SEED:]:
        raise ValueError("its two halves do not belong together")
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def nix_public(secret: str) -> str:
    """The base64 of the public half of a cache's secret key. ValueError for what is none."""
    return base64.b64encode(_decoded(secret)[_SEED:]).decode()


def _decoded(secret: str) -> bytes:
    try:
        both = base64.b64decode(secret.strip().partition(":")[2], validate=True)
    except (binascii.Error, ValueError):
        both = b""
    if len(both) != 2 * _SEED:
        raise ValueError("it is not a key as `nix key generate-secret --key-name NAME` prints it")
    return both


@contextmanager
def _file(content: bytes, scratch: Path | None) -> Iterator[Path]:
    """A file of mode 0600 in a directory of ours, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="sign-", dir=scratch) as directory:
        file = Path(directory) / "file"
        file.touch(mode=0o600)
        file.write_bytes(content)
        yield file


def _keygen(verb: str, *words: str, input: bytes | None = None) -> Completed:
    argv = ["ssh-keygen", "-Y", verb, *words]
    env = {"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    return run(argv, env=env, closed=True, input=input, timeout=_TIMEOUT, check=False)


FULL_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SIGNATURES = (b"gpgsig", b"gpgsig-sha256")
_IDENTITY = re.compile(rb"committer .*<[^<>\n]*> (\d{1,15}) [+-]\d{4}")


@dataclass(frozen=True)
class Commit:
    """`time` is when its committer says that it was made, in seconds since the epoch; `payload` is what was signed."""

    id: str
    parents: tuple[str, ...]
    time: int
    subject: str
    signature: str | None
    payload: bytes

    def __str__(self) -> str:
        return f"{self.id[:12]} {self.subject}".rstrip()


class NotFollowed(FleetError):
    """The last commit does not follow the one that was asked for."""


Read = Callable[[Collection[str]], Mapping[str, Commit | None]]
"""Commits by hash; None for one that is not there."""


def parse(id: str, content: bytes) -> Commit:
    """The commit of this hash. FleetError when the object is another one, or no commit that git would make."""
    algorithm = hashlib.sha1 if len(id) == 40 else hashlib.sha256
    if algorithm(b"commit %d\0%s" % (len(content), content)).hexdigest() != id:
        raise FleetError(f"commit {id[:12]}: what the repository has under this hash is something else; run git fsck")
    header, _, message = content.partition(b"\n\n")
    lines = header.split(b"\n")
    parents = _parents(id, lines)
    dates = [found for line in lines if (found := _IDENTITY.fullmatch(line))]
    if b"\0" in header or len(dates) != 1:
        raise FleetError(f"commit {id[:12]} is not in git's own form; nobody can say what was signed")
    signature, rest = _without_signature(id, lines)
    return Commit(
        id=id,
        parents=parents,
        time=int(dates[0][1]),
        subject=message.lstrip(b"\n").split(b"\n")[0].decode(errors="replace"),
        signature=signature,
        payload=b"\n".join(rest) + content[len(header) :],
    )


def _parents(id: str, lines: Sequence[bytes]) -> tuple[str, ...]:
    """They follow the tree, and stand nowhere else."""
    tree, *rest = [*lines, b""]
    parents = []
    for line in rest:
        if not line.startswith(b"parent "):
            break
        parents.append(line.removeprefix(b"parent ").decode(errors="replace"))
    again = any(line.startswith((b"tree ", b"parent ")) for line in rest[len(parents) :])
    named = [tree.removeprefix(b"tree ").decode(errors="replace"), *parents]
    if not tree.startswith(b"tree ") or again or not all(FULL_HASH.fullmatch(each) for each in named):
        raise FleetError(f"commit {id[:12]} is not in git's own form; nobody can say what follows what")
    return tuple(parents)


def _without_signature(id: str, lines: Sequence[bytes]) -> tuple[str | None, list[bytes]]:
    """The signature in a commit's header, and the header without it."""
    found: list[list[bytes]] = []
    rest: list[bytes] = []
    inside = False
    for line in lines:
        name, _, value = line.partition(b" ")
        if inside and line.startswith(b" "):
            found[-1].append(line[1:])
        elif inside := name in _SIGNATURES:
            found.append([value])
        else:
            rest.append(line)
    if len(found) > 1:
        raise FleetError(f"commit {id[:12]} has more than one signature; which of them counts nobody can say")
    return (b"\n".join(found[0]).decode(errors="replace") + "\n" if found else None), rest


def since(start: str | None, head: str, read: Read) -> list[Commit]:
    """Every commit that came after `start`, up to `head` and by whatever way, parents before their children.

    These are `head` and all that it follows, but for `start` and what that follows; all of them without a `start`.
    NotFollowed when `head` does not follow it, FleetError when the repository does not have all that it takes to tell.
    """
    if head == start:
        return []
    after, missing = _followed(head, read, until=start)
    if start is not None and not any(start in commit.parents for commit in after.values()):
        raise NotFollowed(f"the last commit, {head[:12]}, does not follow {start[:12]}")
    if start is not None and (missing or any(not commit.parents for commit in after.values())):
        before, _ = _followed(start, read)  # a side branch that began before it leads there too
        after = {id: commit for id, commit in after.items() if id not in before}
        missing -= {parent for commit in before.values() for parent in commit.parents}
    if missing:
        what = f"commit {min(missing)[:12]} is not here, so what came before it cannot be verified"
        raise FleetError(f"{what}; git fetch --unshallow")
    return _in_order(after)


def _followed(head: str, read: Read, until: str | None = None) -> tuple[dict[str, Commit], set[str]]:
    """A commit and all that it follows, not past `until`; and the hashes of those that are not here."""
    found: dict[str, Commit] = {}
    missing: set[str] = set()
    ahead = {head}
    while ahead:
        commits = read(ahead)
        missing |= {id for id, commit in commits.items() if commit is None}
        found |= {id: commit for id, commit in commits.items() if commit is not None}
        named = {parent for id in ahead if (commit := found.get(id)) for parent in commit.parents}
        ahead = named - found.keys() - missing - {until or ""}
    return found, missing


def _in_order(commits: Mapping[str, Commit]) -> list[Commit]:
    ordered: dict[str, Commit] = {}
    for id in sorted(commits):
        stack = [id]
        while stack:
            waits = [parent for parent in commits[stack[-1]].parents if parent in commits and parent not in ordered]
            if waits:
                stack += waits
            else:
                last = stack.pop()
                ordered[last] = commits[last]
    return list(ordered.values())


def times(commits: Iterable[Commit], start: Commit | None, now: int) -> dict[str, int]:
    """When each was made, by hash: before nothing that it follows, nor before the `start`, and not after `now`.

    So that a key which is valid no more cannot say that it signed while it was, on whatever branch. `commits` as from
    `since`.
    """
    first = min(start.time, now) if start else 0
    made: dict[str, int] = {}
    for commit in commits:
        made[commit.id] = min(now, max(commit.time, first, *(made.get(parent, 0) for parent in commit.parents)))
    return made

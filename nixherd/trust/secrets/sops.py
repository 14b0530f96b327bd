"""The `sops` program, with the operator's keys or a host's: files encrypted for others, or decrypted to nowhere.

sops looks around for keys and configurations (its environment, HOME, the directories above): each call gets the one key
file and the one configuration that it is to use, a HOME with nothing in it, and none of what else it would take.
"""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.base.files import expanded, write_whole
from nixherd.base.process import Completed, run
from nixherd.base.reasons import reason
from nixherd.base.run import Run
from nixherd.fleet.host_keys import HostKeys
from nixherd.ssh.age import identity
from nixherd.trust.secrets.files import Format

_TIMEOUT = 600.0
_ELSEWHERE = (
    *("SOPS_CONFIG", "SOPS_AGE_KEY", "SOPS_AGE_KEY_CMD", "SOPS_AGE_SSH_PRIVATE_KEY_FILE", "SOPS_AGE_RECIPIENTS"),
    *("SOPS_PGP_FP", "SOPS_KMS_ARN", "SOPS_GCP_KMS_IDS", "SOPS_AZURE_KEYVAULT_URLS", "SOPS_VAULT_URIS"),
    *("SOPS_ENABLE_LOCAL_KEYSERVICE", "SOPS_KEYSERVICE", "SOPS_EDITOR", "SOPS_AGE_SSH_PRIVATE_KEY_CMD"),
)
_NO_DATA_KEY = "Failed to get the data key"
_SYNCING = re.compile(r"Syncing keys for file (.+)")
_SECRET = re.compile(r"AGE-SECRET-KEY-1[A-Z0-9]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sops:
    """sops with one identity: `key_file` holds age identities, mode 0600; `home` is an empty directory."""

    key_file: Path
    home: Path

    def command(self, words: Sequence[object]) -> tuple[list[str], dict[str, str]]:
        """argv and what is added to our environment."""
        unset = [part for name in _ELSEWHERE for part in ("-u", name)]
        env = {"SOPS_AGE_KEY_FILE": str(self.key_file), "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home)}
        env |= {"SOPS_DISABLE_VERSION_CHECK": "1", "LC_ALL": "C.UTF-8"}
        env |= {"GOGC": "off", "GOMEMLIMIT": "256MiB"}  # many small files: collecting garbage is a fifth of its time
        return ["env", *unset, "sops", *map(str, words)], env

    def _run(self, words: Sequence[object], cwd: Path, input: str | None = None) -> Completed:
        argv, env = self.command(words)
        done = run(argv, cwd=cwd, env=env, input=input, timeout=_TIMEOUT, check=False)
        if done.status == 127:
            raise FleetError("sops: not on PATH; install it (3.9 or newer)")
        return done

    # `config` is the `.sops.yaml` to go by; files are said, also in messages, relative to the directory.

    def encrypt(self, directory: Path, config: Path, file: str, text: str, kind: Format = Format.YAML) -> bytes:
        """A file's content, encrypted for whom the rules name; no identity is needed. FleetError when it fails."""
        name = os.path.normpath(directory / file)
        options = ["--filename-override", name, "--input-type", kind, "--output-type", kind]
        done = self._run(["--config", config, "encrypt", *options, "/dev/stdin"], directory, text)
        if done.status:
            raise FleetError(f"{file}: {explained(done.stderr, 'encrypt')}")
        return done.raw

    def update_keys(self, directory: Path, config: Path, files: Sequence[str]) -> None:
        """Encrypt files' data keys for whom the rules name, all of them by one process.

        FleetError names the first that sops could not do; others may be done by then.
        """
        done = self._run(["--config", config, "updatekeys", "--yes", "--", *files], directory)
        if done.status:
            file = _first_wrong(done.stderr, directory)
            raise FleetError(f"{f'{file}: ' if file else ''}{explained(done.stderr, 'updatekeys')}")

    def rotate(self, directory: Path, config: Path, files: Sequence[str]) -> None:
        """Give each file a new data key, so that a data key somebody kept opens it no more. FleetError as above."""
        self._each(directory, config, files, ["rotate", "--in-place"], "rotate")

    def decrypt(self, directory: Path, config: Path, files: Sequence[str]) -> None:
        """Decrypt each file to nowhere: what this identity can read, with its MAC right. FleetError names the first."""
        self._each(directory, config, files, ["decrypt", "--output", os.devnull], "decrypt")

    def _each(self, directory: Path, config: Path, files: Sequence[str], words: Sequence[str], verb: str) -> None:
        def one(file: str) -> Completed:
            return self._run(["--config", config, *words, "--", file], directory)

        with ThreadPoolExecutor(cores()) as pool:
            for file, done in zip(files, pool.map(one, files), strict=True):
                if done.status:
                    raise FleetError(f"{file}: {explained(done.stderr, verb)}")


def cores() -> int:
    return len(os.sched_getaffinity(0))


def _first_wrong(stderr: str, directory: Path) -> str | None:
    """The file that sops was at when it first complained, relative to the directory."""
    current = None
    for line in stderr.splitlines():
        if begun := _SYNCING.search(line):
            current = os.path.relpath(begun[1], directory)
        elif re.search(r"(?i)level=error|error|failed", line):
            return current
    return None


def explained(stderr: str, verb: str) -> str:
    """What sops said, in one line."""
    text = _SECRET.sub("AGE-SECRET-KEY-…", stderr)
    if "MAC mismatch" in text or "message authentication failed" in text:
        return "it was changed without sops, its MAC does not match; restore it from git"
    if any(each in text for each in ("did not find keys in locations", "no identity matched", _NO_DATA_KEY)):
        return "this identity is not one of its recipients; use one that can decrypt it (SOPS_AGE_KEY_FILE)"
    return f"sops {verb}: {reason(text, 'no word')}"


def identity_text(path: Path) -> str:
    """What a file of identities holds, as age reads it; an SSH key is converted. FleetError says what is wrong."""
    try:
        text, mode = path.read_text(), path.stat().st_mode & 0o777
    except FileNotFoundError:
        remedy = "make one with age-keygen, or name yours (SOPS_AGE_KEY_FILE)"
        raise FleetError(f"{path}: no age identity there; {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"{path}: cannot be read as an age identity: {error}") from None
    if mode & 0o077:
        raise FleetError(f"{path}: others may read this identity (mode {mode:04o}); chmod 600 it")
    if "OPENSSH PRIVATE KEY" in text:
        try:
            return identity(text) + "\n"
        except FleetError as error:
            raise FleetError(f"{path}: {error}; use an Ed25519 key or an age identity") from None
    if not _SECRET.search(text) and "AGE-PLUGIN-" not in text:
        raise FleetError(f"{path}: holds no age identity (a line AGE-SECRET-KEY-1…)")
    return text


USUAL = "~/.config/sops/age/keys.txt"


def identity_file(given: str | None) -> Path:
    """The operator's identity: as given, as SOPS_AGE_KEY_FILE says, or in sops' usual place."""
    return expanded(given or os.environ.get("SOPS_AGE_KEY_FILE") or USUAL).absolute()


def operator(run: Run, path: Path) -> Sops:
    """sops as the operator; an SSH key is converted for this run only. FleetError when it is not an identity."""
    text = identity_text(path)
    if text != path.read_text():
        path = run.directory / "identity"
        write_whole(path, text)
    return Sops(path, _empty_home(run))


def nobody(run: Run) -> Sops:
    """sops for what needs no identity: to encrypt."""
    return Sops(Path(os.devnull), _empty_home(run))


def as_host(run: Run, keys: HostKeys, host_id: str) -> Sops | None:
    """sops as a host whose private key is here; None when it is not."""
    pair = keys.held(host_id)
    if pair is None:
        return None
    path = run.directory / f"identity-of-{host_id}"
    try:
        write_whole(path, identity(pair.private_openssh) + "\n")
    except FleetError as error:
        raise FleetError(f"{host_id}: its host key cannot decrypt: {error}") from None
    return Sops(path, _empty_home(run))


def _empty_home(run: Run) -> Path:
    home = run.directory / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    return home

"""The `sops` program, with the operator's keys or a host's: files encrypted for others, or decrypted to nowhere.

sops looks around for keys and configurations (its environment, HOME, the directories above): each call gets the one
configuration that it is to use, and of the environment what the keys at hand need.
"""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import FleetError, ProcessFailed
from nixherd.base.files import write_whole
from nixherd.base.process import Completed, attended, run
from nixherd.base.reasons import reason
from nixherd.base.run import Run
from nixherd.base.terminal import say
from nixherd.fleet.host_keys import HostKeys
from nixherd.ssh.age import identity, recipient_of_nobody
from nixherd.trust.secrets.environment import PLUGIN, SSH, environment, kinds_of, withheld
from nixherd.trust.secrets.files import Format
from nixherd.trust.secrets.identities import SECRET, UNREAD, Operator
from nixherd.trust.secrets.keys import Kind, Recipient

_TIMEOUT = 600.0
_NO_DATA_KEY = "Failed to get the data key"
NO_RECIPIENT = "this identity is not one of its recipients; use one that can decrypt it (SOPS_AGE_KEY_FILE)"
_GPG = re.compile(r"gpg: ((?!encrypted with)[^\n]*(?:failed|error|No )[^\n]*)")
_WRAPPED = re.compile(r"\n\s*\|")  # its list of what each key said
_DAMAGED = re.compile(
    r"base64-decoding|does not match sops' data format|Unknown datatype|parsing time \""
    r"|parsing age header|invalid armor|failed to copy age decrypted data"
)
_UNUSABLE = re.compile(r"gpg: (\S+): skipped: (Unusable public key|No public key)")
_PLUGIN_SAYS = re.compile(r'msg="age: (.*)"')
_LOGGED = re.compile(r'level=(?:error|fatal) msg=("(?:[^"\\]|\\["\\nt])*")')
_SYNCING = re.compile(r"Syncing keys for file (.+)")


@dataclass(frozen=True, slots=True)
class Sops:
    """sops with somebody's keys: `env` is all of its environment.

    `is_attended`: somebody may have to be at the terminal, for a PIN or a touch; then one process is at work at a time.
    """

    env: Mapping[str, str]
    is_attended: bool = False
    hint: str | None = None
    """what is wrong with the identities, where that was not in the way yet"""

    def command(self, words: Sequence[object]) -> tuple[list[str], dict[str, str]]:
        """argv and what is added to our environment, for a program that is the person's own as well: an editor."""
        unset = [part for name in withheld(self.env) for part in ("-u", name)]
        return ["env", *unset, "sops", *map(str, words)], dict(self.env)

    @property
    def processes(self) -> int:
        """How many may be at work at once."""
        return 1 if self.is_attended else cores()

    def _run(self, words: Sequence[object], cwd: Path, input: str | None = None) -> Completed:
        argv = ["sops", *map(str, words)]
        try:
            if self.is_attended and input is None:
                return attended(argv, cwd=cwd, env=self.env, stream=_tell)
            return run(argv, cwd=cwd, env=self.env, closed=True, input=input, timeout=_TIMEOUT, check=False)
        except ProcessFailed as error:
            if error.status != 127:
                raise
            raise FleetError("sops: not on PATH; install it (3.9 or newer)") from None

    # `config` is the `.sops.yaml` to go by; files are said, also in messages, relative to the directory.

    def encrypt(self, directory: Path, config: Path, file: str, text: str, kind: Format = Format.YAML) -> bytes:
        """A file's content, encrypted for whom the rules name; no identity is needed. FleetError when it fails."""
        name = os.path.normpath(directory / file)
        options = ["--filename-override", name, "--input-type", kind, "--output-type", kind]
        done = self._run(["--config", config, "encrypt", *options, "/dev/stdin"], directory, text)
        if done.status:
            raise FleetError(f"{file}: {self._why(done, 'encrypt')}")
        return done.raw

    def update_keys(self, directory: Path, config: Path, files: Sequence[str]) -> None:
        """Encrypt files' data keys for whom the rules name, all of them by one process.

        FleetError names the first that sops could not do; others may be done by then.
        """
        done = self._run(["--config", config, "updatekeys", "--yes", "--", *files], directory)
        if done.status:
            file = _first_wrong(done.stderr, directory)
            raise FleetError(f"{f'{file}: ' if file else ''}{self._why(done, 'updatekeys')}")

    def set_threshold(self, directory: Path, config: Path, files: Mapping[str, int]) -> None:
        """Have files, encrypted for whom the rules name, take this many of their key groups. FleetError as above.

        `updatekeys` never takes a rule's threshold: a key group that nobody opens is added together with it, and taken
        out again by `updatekeys`, which tells of each key that cannot be encrypted for.
        """
        for file, threshold in files.items():
            options = ["--in-place", "--age", recipient_of_nobody(), "--shamir-secret-sharing-threshold", threshold]
            done = self._run(["--config", config, "groups", "add", "--file", file, *options], directory)
            if done.status:
                raise FleetError(f"{file}: {self._why(done, 'groups add')}")
        self.update_keys(directory, config, [*files])

    def rotate(self, directory: Path, config: Path, files: Sequence[str]) -> None:
        """Give each file a new data key, so that a data key somebody kept opens it no more. FleetError as above."""
        self._each(directory, config, files, ["rotate", "--in-place"], "rotate")

    def decrypt(self, directory: Path, config: Path, files: Sequence[str]) -> None:
        """Decrypt each file to nowhere: what this identity can read, with its MAC right. FleetError names the first."""
        self._each(directory, config, files, ["decrypt", "--output", os.devnull], "decrypt")

    def _each(self, directory: Path, config: Path, files: Sequence[str], words: Sequence[str], verb: str) -> None:
        def one(file: str) -> Completed:
            return self._run(["--config", config, *words, "--", file], directory)

        with ThreadPoolExecutor(self.processes) as pool:
            for file, done in zip(files, pool.map(one, files), strict=True):
                if done.status:
                    raise FleetError(f"{file}: {self._why(done, verb)}")

    def _why(self, done: Completed, verb: str) -> str:
        return explained(done.stderr, verb, self.hint)


def cores() -> int:
    return len(os.sched_getaffinity(0))


def _first_wrong(stderr: str, directory: Path) -> str | None:
    """The file that sops was at when it first complained, relative to the directory."""
    current = None
    for line in stderr.splitlines():
        if begun := _SYNCING.search(line):
            current = os.path.relpath(begun[1], directory)
        elif re.search(r"(?i)level=error|error|failed|panic: ", line):
            return current
    return None


def explained(stderr: str, verb: str, hint: str | None = None) -> str:
    """What sops said, in one line; `hint` is what is known to be wrong with the identities."""
    text = SECRET.sub("AGE-SECRET-KEY-…", stderr)
    whole = " ".join(_WRAPPED.sub(" ", text).split())
    if "MAC mismatch" in text or "message authentication failed" in text:
        return "it was changed without sops, its MAC does not match; restore it from git"
    if _DAMAGED.search(whole):
        return "it was changed without sops, and what is encrypted in it is damaged; restore it from git"
    if unusable := _UNUSABLE.search(whole):
        key, is_here = unusable[1], unusable[2] != "No public key"
        what = "is expired, revoked or not for encryption" if is_here else "is not in the keyring here"
        remedy = f"have its owner renew it, and `gpg --import` it, or take it out: `nixherd secrets remove-host {key}`"
        remedy = remedy if is_here else remedy.removeprefix("have its owner renew it, and ")
        return f"sops {verb}: cannot encrypt for the PGP key {key}: it {what}; {remedy}"
    if any(each in text for each in ("did not find keys in locations", "no identity matched", _NO_DATA_KEY)):
        if hint is not None:
            return f"no key that is here decrypts it; {hint}"
        if "GnuPG binary error" in text and (why := _GPG.findall(text)):
            return f"no key that is here decrypts it; gpg: {why[-1].strip()}"
        return NO_RECIPIENT
    words = reason(text, "no word")
    logged = _LOGGED.search(words)
    return f"sops {verb}: {json.loads(logged[1]) if logged else words}"


def operator(run: Run, given: str | os.PathLike[str] | None) -> "AsOperator":
    """sops as whoever runs it, with the identity that is given, or else with what sops finds by itself.

    FleetError when what is given is not an identity.
    """
    return AsOperator(run, Operator.of(given))


@dataclass(frozen=True)
class AsOperator:
    """sops for files of any recipients, as the operator."""

    run: Run
    who: Operator

    def sops(self, recipients: Collection[Recipient]) -> Sops:
        """sops for files that are, or are to be, encrypted for these. FleetError where an identity is needed."""
        kinds, problem = kinds_of(recipients), self.who.problem
        if problem is not None and not any(map(self._is_way, kinds)):
            raise problem
        linked = kinds - {SSH} if self.who.is_given else kinds
        env = environment(linked | self.who.kinds, self.run.directory / "homes", is_alone=self.who.is_given)
        env = self._with_identities(env | _FOR_SPEED, kinds)
        return Sops(env, self.who.is_attended(recipients), str(problem) if problem else None)

    def _is_way(self, kind: str) -> bool:
        """Whether keys of this kind may decrypt without a file of age identities."""
        if kind == SSH:
            return bool(self.who.ssh_keys)
        return bool(self.who.pgp_keys) if kind == Kind.PGP else kind != PLUGIN

    def _with_identities(self, env: dict[str, str], kinds: Collection[str]) -> dict[str, str]:
        env = {name: value for name, value in env.items() if name not in _KEYS}
        for number, each in enumerate(self.who.identities):
            path = each.path
            if each.is_ssh and SSH in kinds:
                env["SOPS_AGE_SSH_PRIVATE_KEY_FILE"] = str(each.path)
            if each.is_ssh and each.text is None:
                continue
            if each.text is not None:
                path = self.run.directory / f"identity-{number}"
                write_whole(path, each.text)
            if "SOPS_AGE_KEY_FILE" not in env:
                env["SOPS_AGE_KEY_FILE"] = str(path)
            elif "XDG_CONFIG_HOME" in env:
                usual = Path(env["XDG_CONFIG_HOME"]) / "sops/age/keys.txt"
                usual.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                usual.unlink(missing_ok=True)
                usual.symlink_to(path)
        if not self.who.is_given:
            env |= {name: os.environ[name] for name in _KEYS if name in os.environ and name not in env}
            if SSH not in kinds:
                env = {name: value for name, value in env.items() if "_SSH_" not in name}
        return env


_KEYS = ("SOPS_AGE_KEY_FILE", "SOPS_AGE_SSH_PRIVATE_KEY_FILE", *UNREAD)
# Many small files: collecting garbage is a fifth of its time.
_FOR_SPEED = {"GOGC": "off", "GOMEMLIMIT": "256MiB", "SOPS_DISABLE_VERSION_CHECK": "1", "LC_ALL": "C.UTF-8"}


def nobody(run: Run, recipients: Collection[Recipient] = ()) -> Sops:
    """sops for what needs no identity: to encrypt for these."""
    return Sops(environment(kinds_of(recipients), run.directory / "homes") | _FOR_SPEED)


def as_host(run: Run, keys: HostKeys, host_id: str) -> Sops | None:
    """sops as a host whose private key is here, as sops-nix uses it; None when it is not."""
    pair = keys.held(host_id)
    if pair is None:
        return None
    path = run.directory / f"identity-of-{host_id}"
    try:
        write_whole(path, identity(pair.private_openssh) + "\n")
    except FleetError as error:
        raise FleetError(f"{host_id}: its host key cannot decrypt: {error}") from None
    env = environment((), run.directory / "homes") | _FOR_SPEED
    return Sops(env | {"SOPS_AGE_KEY_FILE": str(path)})


def _tell(line: str) -> None:
    """Show what a plugin says to the person at the terminal; what it asks, it asks there itself."""
    if found := _PLUGIN_SAYS.search(line):
        say(found[1], err=True)

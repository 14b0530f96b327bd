"""Wrong input for `nixherd secrets`: one line that says what and where, a status, and not a byte changed."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from nixherd.cli.main import run
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import config, contents, git, identity_of, nobodys, repository

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("wrong secrets")]

RULES, COMMON, JSON, ENV = "secrets/.sops.yaml", "secrets/common.yaml", "secrets/sub/thing.json", "secrets/common.env"
ADMIN, DOC1, IGP, OTHER = (key(name).recipient for name in ("admin", "doc1", "igp", "other"))
LEAVES, MESSAGE = "remove-host igp", "it is empty; write what is done"
PASSPHRASE = "b7Xq"
Made = Callable[[Path], object]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One fleet for all cases, which change it alone, and undo that."""
    return repository(tmp_path_factory.mktemp("wrong") / "fleet")


@pytest.fixture
def fleet(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    nobodys(monkeypatch, shared.parent)
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(identity_of(shared.parent)))
    monkeypatch.setenv("EDITOR", "true")
    monkeypatch.chdir(shared.parent)
    first = git(shared, "rev-parse", "HEAD").strip()
    yield shared
    git(shared, "reset", "-q", "--hard", first)
    git(shared, "clean", "-qfdx")
    (shared / ".git/hooks/pre-commit").unlink(missing_ok=True)


@pytest.fixture
def refused(fleet: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Run it on the fleet as it is, and see that it says what it should in one line, and that nothing has changed."""

    def one(words: list[str], expected: str, status: int) -> None:
        before, state = contents(fleet), (git(fleet, "status", "--porcelain"), git(fleet, "rev-parse", "HEAD"))
        capfd.readouterr()
        ended = run(["--fleet", str(fleet), "secrets", *words])
        out, err = capfd.readouterr()
        assert contents(fleet) == before
        assert (git(fleet, "status", "--porcelain"), git(fleet, "rev-parse", "HEAD")) == state
        lines = [line for line in err.splitlines() if not line.startswith("secrets: ")]
        assert len(lines) == 1, err
        assert expected in lines[0], lines[0]
        assert (ended, out) == (status, "")
        for name in ("admin", "other"):
            assert key(name).identity not in err
            assert PASSPHRASE not in err

    return one


def committed(fleet: Path, *made: Made) -> None:
    for each in made:
        each(fleet)
    git(fleet, "add", "-A")
    git(fleet, "commit", "-qm", "wrong")


def write(path: str, content: str | bytes) -> Made:
    return lambda fleet: (fleet / path).write_bytes(content if isinstance(content, bytes) else content.encode())


def swap(path: str, old: str, new: str) -> Made:
    def swapped(fleet: Path) -> None:
        text = (fleet / path).read_text()
        assert old in text
        (fleet / path).write_text(text.replace(old, new))

    return swapped


def cut(path: str, length: int) -> Made:
    return lambda fleet: (fleet / path).write_bytes((fleet / path).read_bytes()[:length])


def link(path: str, target: str) -> Made:
    def linked(fleet: Path) -> None:
        (fleet / path).unlink()
        (fleet / path).symlink_to(target)

    return linked


def directory(path: str) -> Made:
    def made(fleet: Path) -> None:
        (fleet / path).unlink()
        (fleet / path).mkdir()
        (fleet / path / "file").write_text("x\n")

    return made


PINNED = swap("hosts.nix", "placeholder", key("dev").public)
TWO_GROUPS = f"key_groups: [{{age: [{ADMIN}]}}, {{age: [{DOC1}]}}]"
MISTYPED = ADMIN[:-1] + ("q" if ADMIN[-1] != "q" else "p")

# What a `.sops.yaml` says, and what is said of it.
CONFIGURATIONS: Mapping[str, tuple[str | bytes, str]] = {
    "empty": ("", "the list creation_rules is missing"),
    "broken": ("creation_rules: [\n", "line 2: no YAML: "),
    "a tab": ("creation_rules:\n\t- age: x\n", "line 2: a tab, where YAML takes spaces only"),
    "CRLF": ("creation_rules:\r\n  - path_regex: '\r\n", "line 3: no YAML: "),
    "a list": ("- a\n", "the list creation_rules is missing"),
    "rules are a text": ("creation_rules: hello\n", "the list creation_rules is missing"),
    "not UTF-8": (config().encode() + b"# \xe4\n", "line 18: is not UTF-8 text; save it as such"),
    "NUL": (config() + "# \0\n", "control characters are not allowed"),
    "a merge": (f"<<<<<<< HEAD\n{config()}=======\n>>>>>>> x\n", "line 1: a merge was left unfinished there"),
    "a merge, CRLF": ("a: 1\r\n=======\r\n", "line 2: a merge was left unfinished there"),
    "deep": (f"a: {'[' * 3000}{']' * 3000}\ncreation_rules: []\n", "too deep to be read"),
    "an anchor twice": (config().replace("&doc1", "&admin"), "line 4: the anchor &admin stands here a second time"),
    "a list as a key": ("? [a]\n: b\ncreation_rules: []\n", "line 1: found unhashable key"),
}
# What its first rule says.
ONE_RULE: Mapping[str, tuple[str, str]] = {
    "a text": ("hello", "rule 1 is not a mapping; write `- path_regex: …`"),
    "nothing": ("", "rule 1 is not a mapping"),
    "an alias of nothing": ("age: *nobody", "line 2: found undefined alias *nobody: no &nobody is above it"),
    "a tag": ("shamir_threshold: !!int abc", "line 2: the tag !!int is not read; write the value alone"),
    "merging a text": ("<<: hello", "line 2: expected a mapping or list of mappings for merging"),
    "age, mapping": ("age: {a: b}", "rule 1: age is neither a text nor a list of texts"),
    "age, list of lists": ("key_groups: [{age: [[x]]}]", "rule 1: age is neither a text nor a list of texts"),
    "age, cut": (f"age: {ADMIN[:-3]}", "is not an age recipient: mistyped or cut off"),
    "age, mistyped": (f"age: {MISTYPED}", "is not an age recipient: mistyped or cut off"),
    "age, a private key": (f"age: {key('admin').identity}", "rule 1: a private key stands where a recipient belongs"),
    "plugin, cut": ("age: age1yubikey1qqqqq", "is not an age recipient: mistyped or cut off"),
    "SSH, cut": (f"age: {key('admin').public[:40]}", "is not an SSH key: its base64 is cut off or damaged"),
    "SSH, another type": ("age: ecdsa-sha2-nistp256 AAAA", "they begin with age1 or ssh-"),
    "pgp, mapping": ("pgp: {a: b}", "rule 1: pgp is neither a text nor a list of texts"),
    "Azure": ("azure_keyvault: foo", "'foo' is not https://VAULT/keys/KEY/VERSION"),
    "Vault": ("hc_vault_transit_uri: foo", "'foo' is not https://ADDRESS/v1/ENGINE/keys/KEY"),
    "Huawei": ("hckms: foo", "'foo' is not REGION:KEY"),
    "KMS as texts": ("key_groups: [{kms: [foo]}]", "rule 1: kms is not a list of mappings"),
    "groups, text": ("key_groups: hello", "rule 1: key_groups is not a list of mappings"),
    "groups, null": ("key_groups: [null]", "rule 1: key_groups is not a list of mappings"),
    "groups, merge": ("key_groups: [{merge: hello}]", "rule 1: merge is not a list of mappings"),
    "threshold, text": ("shamir_threshold: two", "shamir_threshold 'two' is not a number of key groups"),
    "threshold, infinite": ("shamir_threshold: .inf", "shamir_threshold '.inf' is not a number of key groups"),
    "threshold, list": ("shamir_threshold: [2]", "is not a number of key groups"),
    "threshold, 5000 digits": (f"{{shamir_threshold: {'9' * 5000}, {TWO_GROUPS}}}", "'99999999999999999999' is not a"),
    "\\C": ("path_regex: '\\C'", "is not a regular expression: invalid escape sequence: \\C"),
    "a parenthesis": ("path_regex: '('", "is not a regular expression: missing )"),
    "a glob": ("path_regex: '*.yaml'", "is not a regular expression: no argument for repetition operator: *"),
    "a list of expressions": ("path_regex: [a]", "rule 1: path_regex is not a text"),
}


@pytest.mark.parametrize(("text", "expected"), CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_a_configuration(refused: Callable[..., None], fleet: Path, text: str | bytes, expected: str) -> None:
    write(RULES, text)(fleet)
    refused(["status"], expected, 4)


@pytest.mark.parametrize(("rule", "expected"), ONE_RULE.values(), ids=ONE_RULE.keys())
def test_a_rule(refused: Callable[..., None], fleet: Path, rule: str, expected: str) -> None:
    write(RULES, f"creation_rules:\n  - {rule}\n")(fleet)
    refused(["apply"], expected, 4)


METADATA = '{"sops": {"mac": "x", "lastmodified": "x", %s}}'
# What was done to the fleet and committed, what is then run, what is said, and the status.
FILES: Mapping[str, tuple[Made, str, str, int]] = {
    "the rules, a directory": (directory(RULES), "status", ".sops.yaml: is not a file", 4),
    "the rules, a link to nothing": (link(RULES, "nowhere"), "apply", "is a link to nowhere, where nothing is", 4),
    "the rules, a link to itself": (link(RULES, ".sops.yaml"), "apply", "is a link to .sops.yaml, where nothing is", 4),
    "the rules, a link out": (link(RULES, "/etc/hostname"), "apply", ".sops.yaml: is a symbolic link", 4),
    "two documents": (swap(RULES, "# Who", "---\n# Who"), "edit nosuch", "no creation rule matches it", 4),
    "another document": (
        lambda fleet: (fleet / RULES).write_text(f"{config()}---\nx: 1\n"),
        LEAVES,
        "another YAML document follows, which sops does not read",
        4,
    ),
    "generated": (swap(RULES, "# Who", "# generated by x\n# Who"), LEAVES, "is generated (line 1 says so", 4),
    "called .sops.yml": (
        lambda fleet: (fleet / RULES).rename(fleet / "secrets/.sops.yml"),
        "apply",
        "secrets/.sops.yml: sops does not read it; call it .sops.yaml",
        4,
    ),
    "ignored by git": (
        lambda fleet: (write(".gitignore", "secrets/\n")(fleet), git(fleet, "rm", "-rq", "--cached", "secrets")),
        "apply",
        "secrets/.sops.yaml: git ignores it, so no flake has what is there; take it out of .gitignore",
        4,
    ),
    "another, broken": (write("secrets/sub/.sops.yaml", "x: ["), LEAVES, "sub/.sops.yaml: line 2: no YAML", 4),
    "a merge": (swap(COMMON, "sops:", "<<<<<<< HEAD\nsops:"), LEAVES, "line 7: a merge was left unfinished there", 4),
    "cut off": (cut(COMMON, 300), LEAVES, "common.yaml: cannot be read: it is cut off: values are encrypted", 4),
    "cut off, dotenv": (cut(ENV, 200), LEAVES, "common.env: cannot be read: it is cut off", 4),
    "JSON, deep": (
        write(JSON, '{"sops lastmodified":' + "[" * 100000),
        LEAVES,
        "thing.json: cannot be read: it has",
        4,
    ),
    "a context": (write(JSON, METADATA % '"kms": [{"arn": "x", "context": "x"}]'), LEAVES, "context is not a map", 4),
    "nobody": (write(JSON, METADATA % '"age": [{"recipient": null}]'), LEAVES, "an age entry without a recipient", 4),
    "threshold": (write(JSON, METADATA % f'"shamir_threshold": {"9" * 5000}'), LEAVES, "the threshold '999999999'", 4),
    "a rule for nobody": (
        swap(RULES, f"path_regex: ^ssh_key_\n    age: {ADMIN}", "path_regex: ^ssh_key_\n    age: ''"),
        "apply --give-up",
        "secrets/ssh_key_admin: its rule in secrets/.sops.yaml names nobody who could decrypt it; name somebody",
        4,
    ),
    "a misspelt kind": (
        swap(RULES, "- age:\n          - *admin", "- agee:\n          - *admin"),
        "apply --give-up",
        "secrets/common.env: its rule in secrets/.sops.yaml names nobody who could decrypt it; name somebody",
        4,
    ),
    "no date": (
        write(JSON, METADATA % f'"age": [{{"recipient": "{IGP}"}}]'),
        LEAVES,
        'updatekeys: parsing time "x"',
        4,
    ),
    "changed": (
        swap(COMMON, "mac: ENC[AES256_GCM,data:", "mac: ENC[AES256_GCM,data:AAAA"),
        f"{LEAVES} --rotate",
        "common.yaml: it was changed without sops, its MAC does not match; restore it from git",
        4,
    ),
    "plain": (write(COMMON, "a: 1\n"), "edit common.yaml", "common.yaml: is not encrypted; `sops encrypt", 4),
    "a link out": (link(COMMON, "/etc/hostname"), "edit common.yaml", "common.yaml: is a symbolic link", 4),
    "no hosts.nix": (lambda fleet: (fleet / "hosts.nix").unlink(), "status", "path 'hosts.nix' does not exist", 2),
    "a key that is cut": (
        swap("hosts.nix", key("igp").public, "ssh-ed25519 AAA"),
        LEAVES,
        "hosts.nix: igp.publicKey",
        2,
    ),
    "one key, two hosts": (
        swap("hosts.nix", key("igp").public, key("doc1").public),
        LEAVES,
        "hosts.nix: doc1 has the host key of igp, and would lose its secrets with it; each machine needs its own",
        4,
    ),
    "a key that is another's": (
        lambda fleet: (PINNED(fleet), swap("hosts.nix", key("igp").public, key("dev").public)(fleet)),
        "add-host dev",
        "dev: this is the host key of igp; each machine needs its own",
        4,
    ),
    "a flake that is broken": (
        lambda fleet: (PINNED(fleet), write("flake.nix", "{ outputs = ")(fleet)),
        "add-host dev",
        "dev: which secrets it declares is not known: flake.nix:1:13: syntax error",
        2,
    ),
    "a file without a rule": (
        lambda fleet: (PINNED(fleet), swap("flake.nix", '"dev.yaml"', '"nope.yaml"')(fleet)),
        "add-host dev",
        "dev: secrets/nope.yaml: no rule of secrets/.sops.yaml is for it; add `- {path_regex: '^nope\\.yaml$'",
        2,
    ),
}


@pytest.mark.parametrize(("made", "words", "expected", "status"), FILES.values(), ids=FILES.keys())
def test_files(refused: Callable[..., None], fleet: Path, made: Made, words: str, expected: str, status: int) -> None:
    committed(fleet, made)
    refused(words.split(), expected, status)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["add-host"], "Missing argument 'HOST'"),
        (["add-host", ""], "hosts.nix has no host ''; it has dev, doc1, igp"),
        (["add-host", "a\nb\x1b[31m"], r"hosts.nix has no host a ⏎ b\x1b[31m; it has"),
        (["remove-host", ""], "'' is not a recipient in secrets/.sops.yaml; there are admin, doc1, igp"),
        (["remove-host", "decrypt"], "decrypt is not a recipient in secrets/.sops.yaml; there are admin"),
        (["remove-host", " "], "' ' is not a recipient in"),
        (["remove-host", "igp", "nobody"], "nobody is not a recipient"),
        (["remove-host", OTHER[:-1]], f"{OTHER[:-1]} is not a recipient"),
        (["remove-host", key("other").identity], "AGE-SECRET-KEY-… is not a recipient"),
        (["apply", "--nope"], "No such option '--nope'"),
        (["applyy"], "No such command 'applyy'. Did you mean 'apply'?"),
        (["apply", "--message", " \n"], MESSAGE),
        (["edit", "dev.yaml", "--message", ""], MESSAGE),
        (["apply", "--message", "a\0b"], r"('a\x00b') is not text (a NUL"),
        (["edit", ""], "'' names no file; write the path of a secret file"),
        (["edit", "sub"], "secrets/sub: is a directory; name a file in it"),
        (["edit", ".sops.yaml"], "is not a secret; change it in an editor, then `nixherd secrets apply`"),
        (["edit", ".git/x"], ".git/x: is git's own; no secret is there"),
        (["edit", "../../x"], "../../x: is outside of"),
        (["--directory", "/etc", "status"], "/etc: is not a directory of the fleet's repository"),
        (["--directory", "../..", "status"], "../..: is not a directory of the fleet's repository"),
        (["--directory", RULES, "status"], f"{RULES}: is a file; name the directory with the .sops.yaml"),
        (["--directory", ".git", "init"], ".git: is git's own; no secret is there"),
        (["init", "--person", "alice"], "--person alice: the key is missing; write NAME=KEY"),
        (["init", "--person", "a=age1xxx"], "age1xxx is not an age recipient: mistyped or cut off; write NAME=KEY"),
        (["init", "--person", f"a={ADMIN},{OTHER}"], "it has several keys, and a person has one; write NAME=KEY"),
        (["init", "--person", f"a={key('other').identity}"], "a private key stands where a recipient belongs"),
        (["init", "--person", f"={OTHER}"], "'' is not a name for a key; use letters"),
        (["init", "--person", "a=arn:aws:kms:x"], "kms keys are written into .sops.yaml by hand"),
        (["init", "--name", ""], "'' is not a name for a key; use letters"),
        (["remove-host", "igp", "--identity", ""], "'' names no identity; write the path of its file"),
        (["remove-host", "igp", "--identity", "~nosuchuser/x"], "~nosuchuser/x: the user does not exist here"),
    ],
)
def test_words(refused: Callable[..., None], words: list[str], expected: str) -> None:
    refused(words, expected, 2)


@pytest.mark.parametrize(
    ("option", "given", "expected"),
    [
        ("--rule", "0", ".sops.yaml has no rule 0; there are secrets/.sops.yaml: rule 1 ("),
        ("--rule", "", "'' names no rule; write its number or a part of its path_regex: secrets/.sops.yaml: rule 1 ("),
        ("--rule", " ", "' ' names no rule; write its number"),
        ("--rule", "\t\u00a0", "'\\t\\xa0' names no rule; write its number"),
        ("--rule", f"{RULES}: ", f"'{RULES}: ' names no rule; write its number"),
        ("--replace", " ", "nobody is called ' ' in"),
        ("--rule", "e", "rule e is several: secrets/.sops.yaml: rule 1 ("),
        ("--rule", "x/.sops.yaml:1", ".sops.yaml has no rule x/.sops.yaml:1; there are"),
        ("--replace", "", "nobody is called '' in secrets/.sops.yaml; there are admin, doc1, igp"),
        ("--replace", "doc1", "--replace doc1: that is the host key of doc1; take doc1 out first"),
        ("--replace", key("admin").identity, "nobody is called AGE-SECRET-KEY-… in"),
    ],
)
def test_a_host_that_joins(refused: Callable[..., None], fleet: Path, option: str, given: str, expected: str) -> None:
    committed(fleet, PINNED)
    refused(["add-host", "dev", option, given], expected, 2)


def ssh_key(*words: str) -> Callable[[Path], None]:
    def made(path: Path) -> None:
        subprocess.run(["ssh-keygen", "-q", *words, "-f", path], check=True, capture_output=True)
        path.with_name(f"{path.name}.pub").unlink()

    return made


def text(content: str, mode: int = 0o600) -> Callable[[Path], None]:
    def made(path: Path) -> None:
        path.write_text(content)
        path.chmod(mode)

    return made


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(lambda path: None, "no age identity there; make one with age-keygen", id="missing"),
        pytest.param(Path.mkdir, "is not a file; name the file with your age identities", id="a directory"),
        pytest.param(text(f"{key('admin').identity}\n", 0o644), "(mode 0644); chmod 600 it", id="open to others"),
        pytest.param(text("garbage\n"), "holds no age identity (a line AGE-SECRET-KEY-1…)", id="garbage"),
        pytest.param(text(ADMIN), "holds no age identity (a line AGE-SECRET-KEY-1…)", id="a recipient"),
        pytest.param(text(key("admin").identity[:-5]), "line 1: it is mistyped or cut off", id="cut"),
        pytest.param(text(key("other").identity), "this identity is not one of its recipients", id="somebody else's"),
        pytest.param(
            ssh_key("-t", "rsa", "-b", "2048", "-N", PASSPHRASE * 2), "with a passphrase; use an Ed", id="locked"
        ),
        pytest.param(ssh_key("-t", "ecdsa", "-N", ""), "it is not an ed25519 key; use an Ed25519 key", id="ECDSA"),
        pytest.param(
            text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n"),
            "it is not a private key in OpenSSH's form, or damaged",
            id="damaged",
        ),
    ],
)
def test_an_identity(
    refused: Callable[..., None], fleet: Path, tmp_path: Path, made: Callable[[Path], None], expected: str
) -> None:
    made(tmp_path / "key")
    refused(["remove-host", "igp", "--identity", str(tmp_path / "key")], expected, 4)


def test_what_git_refuses(refused: Callable[..., None], fleet: Path) -> None:
    hook = fleet / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no thanks >&2\nexit 1\n")
    hook.chmod(0o755)
    refused(["remove-host", "igp"], "git commit: no thanks; every file was put back as it was", 4)
    (fleet / RULES).write_text(f"{config()}# mine\n")
    refused(["remove-host", "igp"], "secrets/.sops.yaml: has changes that are not committed", 4)

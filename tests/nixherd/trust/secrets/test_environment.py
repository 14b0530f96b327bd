"""What sops gets of the operator's environment: what the kinds of keys need, and nothing else."""

import os
from pathlib import Path

import pytest

from nixherd.trust.secrets import keys
from nixherd.trust.secrets.environment import environment, kinds_of, withheld
from nixherd.trust.secrets.keys import Recipient
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.kinds import token

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "kms",
    "GOOGLE_APPLICATION_CREDENTIALS": "gcp_kms",
    "AZURE_CLIENT_SECRET": "azure_keyvault",
    "VAULT_TOKEN": "hc_vault",
    "GPG_TTY": "pgp",
    "SOPS_AGE_SSH_PRIVATE_KEY_FILE": "ssh",
    "AGE_PLUGIN_DEBUG": "plugin",
    "HUAWEICLOUD_SDK_SK": "hckms",
}
PLACES = {
    ".aws/credentials": "kms",
    ".config/gcloud/credentials.db": "gcp_kms",
    ".azure/token": "azure_keyvault",
    ".vault-token": "hc_vault",
    ".ssh/id_ed25519": "ssh",
    ".config/sops/age/keys.txt": "",
}
KINDS: dict[str, Recipient] = {
    "": key("admin").age,
    "kms": keys.kms("arn:aws:kms:x"),
    "gcp_kms": keys.gcp_kms("projects/x"),
    "azure_keyvault": keys.azure("https://v", "k", "1"),
    "hc_vault": keys.vault("https://v", "e", "k"),
    "hckms": keys.hckms("a:b"),
    "pgp": keys.pgp("AB"),
    "ssh": keys.age("ssh-ed25519 AAAA x"),
    "plugin": keys.age(token("alice").recipient),
}


WHOLE = ("plugin", "pgp")  # kinds with the person's home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name not in ("PATH", "HOME"):
            monkeypatch.delenv(name)
    for name in SECRETS:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SOPS_AGE_RECIPIENTS", "age1…")
    monkeypatch.setenv("OTHER_TOKEN", "x")
    for place in PLACES:
        file = tmp_path / "home" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(place)
    return tmp_path / "home"


@pytest.mark.parametrize("kind", [each for each in KINDS if each not in WHOLE])
def test_each_kind_has_what_it_needs(kind: str, home: Path, tmp_path: Path) -> None:
    kinds = kinds_of([key("doc1").age, KINDS[kind]])
    assert kinds == ({kind} if kind else set())
    env = environment(kinds, tmp_path / "homes")
    assert {name for name in SECRETS if name in env} == {name for name, whose in SECRETS.items() if whose == kind}
    assert not {"OTHER_TOKEN", "SOPS_AGE_RECIPIENTS"} & env.keys()
    below = Path(env["HOME"])
    assert below != home
    assert {place for place in PLACES if (below / place).exists()} == {
        place for place, whose in PLACES.items() if kind and whose == kind
    }
    assert Path(env["XDG_CONFIG_HOME"]).is_relative_to(below)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_plugin_and_gpg_have_the_persons_home(kind: str, home: Path, tmp_path: Path) -> None:
    env = environment(kinds_of([KINDS[kind]]), tmp_path / "homes")
    assert env["HOME"] == str(home)
    assert {name for name in SECRETS if name in env} == {name for name, whose in SECRETS.items() if whose == kind}
    assert not (Path(env["XDG_CONFIG_HOME"]) / "sops").exists()  # where sops would find more identities
    assert "XDG_CONFIG_HOME" not in environment(kinds_of([KINDS[kind]]), tmp_path / "homes", is_alone=False)


def test_an_editor_has_the_rest(home: Path, tmp_path: Path) -> None:
    env = environment({"pgp"}, tmp_path / "homes")
    gone = withheld(env)
    assert {"AWS_SECRET_ACCESS_KEY", "VAULT_TOKEN", "SOPS_AGE_RECIPIENTS"} <= {*gone}
    assert not {"OTHER_TOKEN", "GPG_TTY", "PATH", "HOME"} & {*gone}

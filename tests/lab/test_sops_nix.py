"""The lab's sops-nix leaves on a machine what the real one leaves: each expectation was read in sops-nix' sources.

The sources are pkgs/sops-install-secrets/main.go and modules/ of github.com/Mic92/sops-nix at 56b2406 (2026-06-22);
docstrings name the function or the module. A configuration is evaluated with the lab's modules, and its activation run
in namespaces. With SOPS_INSTALL_SECRETS=PROGRAM the real program does the same work, and has to pass all of it.
"""

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.nix_cli import environment, nix, stand_ins, try_nix

pytestmark = pytest.mark.lab

REAL = os.environ.get("SOPS_INSTALL_SECRETS")
CONVERT = Path(__file__).resolve().parents[2] / "lab/inputs/sops-nix/ssh_to_age.py"
MODULES = """
  let
    lib = import @lab@/nixpkgs/lib;
    pkgs = import @lab@/nixpkgs {system = "x86_64-linux";};
    system = "x86_64-linux";
    nixos = modules: (import @lab@/nixpkgs/nixos/lib/eval-config.nix {inherit lib modules system;}).config;
    evalHome = import @lab@/inputs/home-manager/eval.nix;
    home = modules: (evalHome {inherit lib pkgs modules; extraSpecialArgs = {};}).config;
    of = modules: nixos ([@lab@/inputs/sops-nix/module.nix {
      services.openssh.enable = true;
      services.openssh.hostKeys = [{type = "ed25519"; path = "@host_key@";}];
      sops.defaultSopsFile = @place@/secrets.yaml;
      users.users.web = {isSystemUser = true; group = "web"; uid = 321;};
      users.groups.web.gid = 321;
    }] ++ modules);
    script = name: c: c.system.activationScripts.${name}.text;
  in
"""
# The machine: $1 is its /etc/passwd and group. What a script leaves is printed as `PATH TYPE MODE OWNER:GROUP TARGET`.
MACHINE = """
set -e
umask 0022
mount --make-rprivate /
mount -t tmpfs tmpfs /run; mkdir /run/nixos
mount -t tmpfs tmpfs /mnt; mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
mount -t tmpfs tmpfs /srv
printf '%s\\n' web:x:321:321::/:/bin/sh root:x:0:0::/root:/bin/sh >/etc/passwd
printf '%s\\n' web:x:321: root:x:0: keys:x:96: other:x:322: >/etc/group
all() { find /run/secrets* /run/user/* /srv/* -printf '%p %y %m %u:%g %l\\n' 2>/dev/null | sed 's/ $//' | sort; }
tree() { echo "== $1"; all; echo "== -"; }
content() { echo "== $1"; shift; for f in "$@"; do printf '%s=%s\\n' "$f" "$(cat "$f")"; done; echo "== -"; }
"""


@dataclass
class Machine:
    """`place` has the secret files; `sections` are what the last script printed, by name."""

    place: Path
    sections: dict[str, list[str]] = field(default_factory=dict)

    def expression(self, text: str) -> str:
        found = {"lab": stand_ins(), "place": self.place, "host_key": self.place / "host_key"}
        for name, value in found.items():
            text = text.replace(f"@{name}@", str(value))
        return text

    def activation(self, name: str, *modules: str) -> str:
        """A snippet of the activation script of a configuration with these modules."""
        expression = self.expression(f'{MODULES} script "{name}" (of [{" ".join(modules)}])')
        text = nix("eval", "--impure", "--raw", "--expr", expression)
        paths = " ".join(re.findall(r"/nix/store/[^/\s]+\.json|/nix/store/[^/\s]+-sops-install-secrets-[^/\s]+", text))
        self._build(paths.split(), expression)
        return re.sub(r"/nix/store/\S+/bin/sops-install-secrets", REAL, text) if REAL else text

    def _build(self, paths: list[str], expression: str) -> None:
        """The evaluation alone makes no file of what is derived."""
        whole = f'let text = {expression}; in pkgs.writeText "activation" text'
        pkgs = self.expression('(import @lab@/nixpkgs {system = "x86_64-linux";})')
        nix("build", "--impure", "--no-link", "--expr", f"let pkgs = {pkgs}; in {whole}")
        assert all(Path(path).exists() for path in paths)

    def run(self, *lines: str) -> str:
        """Run a script on a new machine; what it said besides its sections."""
        env = environment() | {"SSH_TO_AGE": str(CONVERT)}
        argv = ["unshare", "--mount", "bash", "-c", "\n".join((MACHINE, *lines))]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        self.sections = {}
        for line in done.stdout.splitlines():
            if line.startswith("== "):
                self.sections[line[3:]] = section = []
            elif self.sections:
                section.append(line)
        return done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Secret files for a host key: YAML, JSON, dotenv, binary."""
    place = tmp_path_factory.mktemp("sops")
    for name in ("host_key", "other_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
    plain = {
        "secrets.yaml": 'token: hush\nwifi:\n  password: hunter2\nempty: ""\nnumber: 5\n',
        "vars.env": "A=1\n",
        "identity": "the key\n",
        "flat.json": '{"a": "x", "deep": {"b": "y"}}',
    }
    for name, text in plain.items():
        (place / name).write_text(text)
    script = 'r=$(python3 "$1" "$2/host_key" | age-keygen -y); cd "$2"; shift 2; for f in "$@"; do '
    script += 'sops encrypt --age "$r" --in-place "$f" || exit; done'
    subprocess.run(["sh", "-ec", script, "sh", CONVERT, place, *plain], env=environment(), check=True)
    return place


@pytest.fixture
def machine(place: Path) -> Machine:
    return Machine(place)


ALL = """{
  sops.secrets = {
    token.restartUnits = ["web.service"];
    "wifi/password" = {owner = "web"; mode = "0660";};
    empty = {};
    whole = {key = ""; path = "/srv/deep/whole.yaml";};
    environment = {format = "dotenv"; sopsFile = @place@/vars.env; uid = 5000; gid = 5001; mode = "0440";};
    identity = {
      format = "binary"; sopsFile = @place@/identity; path = "/srv/identity"; owner = "web"; group = "other";
    };
    "deep/er/a" = {format = "json"; sopsFile = @place@/flat.json; key = "a";};
  };
  sops.templates.conf = {content = "t=${C.sops.placeholder.token}"; mode = "0666";};
  sops.templates."d/linked" = {
    content = "p=${C.sops.placeholder."wifi/password"}"; owner = "web"; path = "/srv/linked";
  };
}"""
GENERATION = [
    "/run/secrets.d/1 d 751 root:keys",
    "/run/secrets.d/1/deep d 751 root:keys",
    "/run/secrets.d/1/deep/er d 751 root:keys",
    "/run/secrets.d/1/deep/er/a f 400 root:root",
    "/run/secrets.d/1/empty f 400 root:root",
    "/run/secrets.d/1/environment f 440 5000:5001",
    "/run/secrets.d/1/identity f 400 web:other",
    "/run/secrets.d/1/rendered d 751 root:keys",
    "/run/secrets.d/1/rendered/conf f 666 root:root",
    "/run/secrets.d/1/rendered/d d 751 root:keys",
    "/run/secrets.d/1/rendered/d/linked f 400 web:web",
    "/run/secrets.d/1/token f 400 root:root",
    "/run/secrets.d/1/whole f 400 root:root",
    "/run/secrets.d/1/wifi d 751 root:keys",
    "/run/secrets.d/1/wifi/password f 640 web:web",
]
LINKS = [
    "/srv/deep d 755 root:root",
    "/srv/deep/whole.yaml l 777 root:root /run/secrets/whole",
    "/srv/identity l 777 web:other /run/secrets/identity",
    "/srv/linked l 777 web:web /run/secrets/rendered/d/linked",
]


def module(text: str) -> str:
    return "({config, ...}: let C = config; in " + text + ")"


def test_the_tree_of_a_generation(machine: Machine) -> None:
    """MountSecretFs: /run/secrets.d, 0751, root:keys. prepareSecretsDir: generation 1. createParentDirs: 0751,
    root:keys. writeSecrets: os.WriteFile, so that the umask takes from 0660; then chown. writeTemplate: Chmod, which it
    does not. installSecrets: age-keys.txt stays. symlinkSecretsAndTemplates: MkdirAll(0777), a link to
    /run/secrets/NAME owned as the secret is; none where the path is the default.
    """
    said = machine.run(machine.activation("setupSecrets", module(ALL)), "tree first")
    assert machine.sections["first"] == [
        "/run/secrets l 777 root:root /run/secrets.d/1",
        "/run/secrets.d d 751 root:keys",
        *GENERATION,
        "/run/secrets.d/age-keys.txt f 600 root:root",
        *LINKS,
    ]
    assert f"sops-install-secrets: Imported {machine.place}/host_key as age key" in said


def test_what_is_in_the_files(machine: Machine) -> None:
    """decryptSecret: with key "" and for dotenv, ini and binary the whole file; otherwise the text at the key.
    renderTemplate: placeholders become values. An empty secret is an empty file.
    """
    names = "token,wifi/password,empty,environment,identity,deep/er/a,rendered/conf"
    files = f"/run/secrets/{{{names}}} /srv/linked /srv/deep/whole.yaml"
    machine.run(machine.activation("setupSecrets", module(ALL)), f"content files {files}")
    assert machine.sections["files"] == [
        "/run/secrets/token=hush",
        "/run/secrets/wifi/password=hunter2",
        "/run/secrets/empty=",
        "/run/secrets/environment=A=1",
        "/run/secrets/identity=the key",
        "/run/secrets/deep/er/a=x",
        "/run/secrets/rendered/conf=t=hush",
        "/srv/linked=p=hunter2",
        "/srv/deep/whole.yaml=token: hush",
        *("wifi:", "    password: hunter2", 'empty: ""', "number: 5"),
    ]


def test_generations_count_up_and_old_ones_go(machine: Machine) -> None:
    """prepareSecretsDir: the number in the link's target, plus one. pruneGenerations: what is `keepGenerations` (1 by
    default) or more behind goes, nothing with 0; not what is no number. handleModifications: units of what is new or
    another, at a switch, not at a boot.
    """
    once = machine.activation("setupSecrets", '{sops.secrets.token.restartUnits = ["web.service"];}')
    more = machine.activation(
        "setupSecrets", '{sops.keepGenerations = 0; sops.secrets.a = {key = "token"; reloadUnits = ["a.service"];};}'
    )
    said = machine.run(
        *(once, "tree first", once, "tree second", more, "tree third", "content units /run/nixos/*"),
        *(
            "mkdir /run/secrets.d/{50..98} /run/secrets.d/none; ln -sfn /run/secrets.d/98 /run/secrets",
            more,
            "tree many",
        ),
        *(once, "tree pruned"),
    )

    def generations(section: str) -> list[str]:
        lines = [
            re.match(r"/run/secrets\.d/(\w+) d|/run/secrets l .*/(\d+)$", line) for line in machine.sections[section]
        ]
        return [match[1] or f"-> {match[2]}" for match in lines if match]

    assert generations("first") == ["-> 1", "1"]
    assert generations("second") == ["-> 2", "2"]
    assert generations("third") == ["-> 3", "2", "3"]
    assert machine.sections["units"] == ["/run/nixos/activation-reload-list=a.service"]
    assert generations("many") == ["-> 99", "2", "3", *map(str, range(50, 100)), "none"]
    assert generations("pruned") == ["-> 100", "100", "none"]
    assert said.count("Imported") == 5


@pytest.mark.slow  # ten configurations
def test_a_failure_leaves_the_generation_that_was_there(machine: Machine) -> None:
    """decryptSecrets, before prepareSecretsDir: nothing is written before all of them are decrypted."""
    good = machine.activation("setupSecrets", module(ALL))
    for wrong, line in (
        ('{sops.age.sshKeyPaths = ["@place@/other_key"]; sops.secrets.token = {};}', "failed to decrypt '"),
        ('{sops.age.sshKeyPaths = ["/no/such"]; sops.secrets.token = {};}', "Cannot read ssh key '/no/such': open /no"),
        ('{sops.age.keyFile = "/no/such"; sops.secrets.token = {};}', "cannot read keyfile '/no/such': open /no/such"),
        ("{sops.secrets.number = {};}", "is not valid: the value of key '' is not a string"),
        ('{sops.secrets.x.key = "wifi/none";}', "is not valid: the key 'wifi/none' cannot be found"),
        ('{sops.secrets.x.key = "wifi";}', "is not valid: the value of key '' is not a string"),
        ('{sops.secrets.b = {key = "deep/b"; format = "json"; sopsFile = @place@/flat.json;};}', "does not refer to a"),
        ('{sops.secrets.token.owner = "nobodys"; sops.secrets.token.group = "web";}', "user 'nobodys': user: unknown"),
        ('{sops.secrets.token.mode = "u=r";}', "invalid number in mode: u=r"),
    ):  # fmt: skip
        bad = machine.activation("setupSecrets", machine.expression(wrong))
        said = machine.run(good, "tree before", f"( {bad} ) && echo '== unexpected' || echo '== failed'", "tree after")
        assert line in said, said
        assert "failed" in machine.sections, wrong
        assert machine.sections["before"] == machine.sections["after"], wrong


def test_what_is_in_the_way_of_a_link(machine: Machine) -> None:
    """createSymlink: a file, another link or an empty directory is removed; `cannot override` for one with files in it,
    when the new generation is current already and the other links are not made.
    """
    good = machine.activation("setupSecrets", module(ALL))
    file = "rm /srv/identity; echo mine >/srv/identity"
    full = "rm /srv/identity; mkdir -p /srv/identity/full"
    machine.run(good, file, good, "tree file", "rm /srv/identity; mkdir /srv/identity", good, "tree empty")
    assert set(LINKS) <= set(machine.sections["file"]) & set(machine.sections["empty"])
    said = machine.run(good, full, f"( {good} ) || echo", "tree after")
    assert "cannot override /srv/identity: remove /srv/identity: directory not empty" in said
    assert "/srv/identity/full d 755 root:root" in machine.sections["after"]
    assert "/run/secrets l 777 root:root /run/secrets.d/2" in machine.sections["after"]
    assert "/run/secrets.d/1 d 751 root:keys" in machine.sections["after"]
    machine.run("mkdir -p /run/secrets/mine", good, "tree before")  # prepareSecretsDir: RemoveAll
    assert "/run/secrets l 777 root:root /run/secrets.d/1" in machine.sections["before"]


def test_secrets_for_users_are_there_before_them(machine: Machine) -> None:
    """modules/sops/secrets-for-users: /run/secrets-for-users.d with -ignore-passwd, where all is root's; the snippet
    `users` comes after it, and `setupSecrets`, for the others, after `users` and `groups`.
    """
    declared = "{sops.secrets.token.neededForUsers = true; sops.secrets.empty = {};}"
    both = [machine.activation(name, declared) for name in ("setupSecretsForUsers", "setupSecrets")]
    machine.run("rm /etc/passwd /etc/group", both[0], "tree early")
    assert machine.sections["early"] == [
        "/run/secrets-for-users l 777 root:root /run/secrets-for-users.d/1",
        "/run/secrets-for-users.d d 751 root:root",
        "/run/secrets-for-users.d/1 d 751 root:root",
        "/run/secrets-for-users.d/1/token f 400 root:root",
        "/run/secrets-for-users.d/age-keys.txt f 600 root:root",
    ]
    expression = f"{MODULES} lib.mapAttrs (_: s: s.deps) (of [{declared}]).system.activationScripts"
    deps = json.loads(nix("eval", "--impure", "--json", "--expr", machine.expression(expression)))
    assert "setupSecretsForUsers" in deps["users"]
    assert {"users", "groups"} <= set(deps["setupSecrets"])
    path = nix(
        "eval",
        "--impure",
        "--raw",
        "--expr",
        machine.expression(f"{MODULES} (of [{declared}]).sops.secrets.token.path"),
    )
    assert path == "/run/secrets-for-users/token"


def test_a_dry_activation_writes_and_does_not_switch(machine: Machine) -> None:
    """installSecrets: the next generation is written, as root's (validateSecret), and the link stays."""
    good, more = (machine.activation("setupSecrets", each) for each in ("{sops.secrets.token = {};}", module(ALL)))
    machine.run(good, f"( export NIXOS_ACTION=dry-activate; {more} )", "tree after", "content units /run/nixos/*")
    after = machine.sections["after"]
    assert "/run/secrets l 777 root:root /run/secrets.d/1" in after
    assert "/run/secrets.d/2/identity f 400 root:root" in after
    assert not [line for line in after if line.startswith("/srv")]


def test_a_home_has_its_own(machine: Machine) -> None:
    """modules/home-manager/sops.nix: the link ~/.config/sops-nix/secrets to %r/secrets.d/N, %r being $XDG_RUNTIME_DIR;
    with -ignore-passwd and in user mode nothing is mounted and nobody's made.
    """
    declared = """({config, ...}: {
      home = {username = "web"; homeDirectory = "/srv/web"; stateVersion = "25.11";};
      sops.defaultSopsFile = @place@/secrets.yaml;
      sops.age.sshKeyPaths = ["/run/key"];
      sops.secrets.token = {};
      sops.secrets."wifi/password".path = "%r/password";
      sops.templates.conf = {content = "t=${config.sops.placeholder.token}"; path = "/srv/web/deep/conf";};
    })"""
    expression = machine.expression(
        f"{MODULES} (home [@lab@/inputs/sops-nix/home.nix {declared}]).systemd.user.services.sops-nix.Service.ExecStart"
    )
    script = nix("eval", "--impure", "--raw", "--expr", expression)
    machine._build([script], expression)
    machine.run(
        "mkdir -p /srv/web /run/user/321 /run/bin; chown web: /srv/web /run/user/321",
        'mount --bind "$(dirname "$(command -v sops)")" /run/bin',
        f"cp {machine.place}/host_key /run/key; chown web: /run/key",
        "user() { setpriv --reuid=321 --regid=321 --clear-groups env PATH=/run/bin:/usr/bin:/bin HOME=/srv/web "
        'XDG_RUNTIME_DIR=/run/user/321 "$@"; }',
        f"user {script}; user {script}; tree after; content files /run/user/321/password /srv/web/deep/conf",
    )
    assert [line for line in machine.sections["after"] if "web" in line.split()[0] or "/321/" in line] == [
        "/run/user/321/password l 777 web:web /srv/web/.config/sops-nix/secrets/wifi/password",
        "/run/user/321/secrets.d d 751 web:web",
        "/run/user/321/secrets.d/2 d 751 web:web",
        "/run/user/321/secrets.d/2/rendered d 751 web:web",
        "/run/user/321/secrets.d/2/rendered/conf f 400 web:web",
        "/run/user/321/secrets.d/2/token f 400 web:web",
        "/run/user/321/secrets.d/2/wifi d 751 web:web",
        "/run/user/321/secrets.d/2/wifi/password f 400 web:web",
        "/run/user/321/secrets.d/age-keys.txt f 600 web:web",
        "/srv/web d 755 web:web",
        "/srv/web/.config d 755 web:web",
        "/srv/web/.config/sops-nix d 755 web:web",
        "/srv/web/.config/sops-nix/secrets l 777 web:web /run/user/321/secrets.d/2",
        "/srv/web/deep d 755 web:web",
        "/srv/web/deep/conf l 777 web:web /srv/web/.config/sops-nix/secrets/rendered/conf",
    ]
    assert machine.sections["files"] == ["/run/user/321/password=hunter2", "/srv/web/deep/conf=t=hush"]


def test_a_declared_file_that_does_not_exist_is_an_error_of_the_evaluation(machine: Machine) -> None:
    """modules/sops/manifest-for.nix, `failedAssertions`."""
    expression = f'{MODULES} script "setupSecrets" (of [{{sops.secrets.token.sopsFile = @place@/none.yaml;}}])'
    done = try_nix("eval", "--impure", "--raw", "--expr", machine.expression(expression))
    assert done.returncode != 0
    assert f"Cannot find path '{machine.place}/none.yaml' set in sops.secrets.\"token\".sopsFile" in done.stderr

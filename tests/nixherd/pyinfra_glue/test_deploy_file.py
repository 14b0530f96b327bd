"""What a deploy file says of itself, and what follows from it before anything is connected."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.context import ctx_host

from nixherd.base.errors import Usage
from nixherd.deploy.commit_policy import Gate
from nixherd.fleet.place import OF_THE_TREE
from nixherd.pyinfra_glue import inventory
from nixherd.pyinfra_glue.deploy_file import DeployFile, declared, deploy_file, some_are_the_operators
from nixherd.pyinfra_glue.inventory import _asked, _check_data
from nixherd.pyinfra_glue.node import check_words

ROOT = Path(__file__).parents[3]
ROLLOUT = DeployFile("deploy", rollout=True, from_flake=True)
MAKES = {"from_flake": True, "makes_machines": True, "by_hypervisor": True}
OURS = {
    "check": [DeployFile("check", asks_machines=False)],
    "deploy": [ROLLOUT],
    "enroll": [DeployFile("enroll", by_hypervisor=True)],
    "install": [DeployFile("install", **MAKES)],
    "post_provision": [DeployFile("post-provision", by_hypervisor=True)],
    "provision": [DeployFile("provision", **MAKES)],
    "proxmox_host": [DeployFile("proxmox-host", for_nodes=True)],
    "reboot": [DeployFile("reboot", rollout=True)],
    "copy": [DeployFile("copy", rollout=True, from_flake=True)],
    "secrets_check": [DeployFile("secrets-check")],
    "vms": [DeployFile("vms", asks_machines=False)],
}


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    return ROOT


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        file = tmp_path / "own.py"
        file.write_text(text)
        return str(file)

    return write


def flat(*words: str) -> list[DeployFile]:
    return [each for file in declared(words).values() for each in file]


def test_each_of_ours_says_what_it_is(checkout: Path) -> None:
    files = {path.stem: flat(f"deploys/{path.name}") for path in (checkout / "deploys").glob("*.py")}
    assert files == OURS


@pytest.mark.parametrize(
    "form",
    [
        "deploys/deploy.py",
        "./deploys/deploy.py",
        "{0}/deploys/deploy.py",
        "{0}/deploys/../deploys/deploy.py",
        "{1}/renamed.py",
        "{1}/copied.py",
    ],
)
def test_its_path_does_not_matter(checkout: Path, tmp_path: Path, form: str) -> None:
    (tmp_path / "renamed.py").symlink_to(checkout / "deploys" / "deploy.py")
    (tmp_path / "copied.py").write_text((checkout / "deploys" / "deploy.py").read_text())
    assert flat(form.format(checkout, tmp_path)) == [ROLLOUT]


@pytest.mark.parametrize(
    "include",
    [
        "local.include('deploys/deploy.py')",
        f"local.include({str(ROOT / 'deploys/deploy.py')!r})",
        "local.include(filename='deploys/deploy.py')",
        "if host.data.get('web'):\n    local.include('deploys/deploy.py', data={'a': 1})",
        "from pyinfra.local import include\ninclude('deploys/deploy.py')",
        "local.include('./second.py')",
    ],
)
def test_what_a_file_includes_it_is_as_well(
    checkout: Path, tmp_path: Path, own: Callable[[str], str], include: str
) -> None:
    (tmp_path / "second.py").write_text("local.include('./own.py')\nlocal.include('deploys/deploy.py')\n")
    file = own(f"from pyinfra import host, local\n{include}\n")
    assert flat(file) == [ROLLOUT]
    with pytest.raises(Usage, match="logged in to for nothing else"):
        check_words([file])


VMS = DeployFile("vms", asks_machines=False)


@pytest.mark.parametrize(
    ("text", "declares", "is_the_operators"),
    [
        ("from nixherd.deploys import deploy\ndeploy()\n", [ROLLOUT], False),
        ('"""Mine."""\nfrom nixherd.deploys import deploy as go, vms\nvms()\ngo(name="x")\n', [VMS, ROLLOUT], False),
        ("import nixherd.deploys\nnixherd.deploys.deploy()\n", [ROLLOUT], False),
        ("import nixherd.deploys as d\nd.deploy()\n", [ROLLOUT], False),
        ("from nixherd import deploys\ndeploys.deploy()\nprint(deploys)\n", [ROLLOUT], True),
        ("from nixherd.deploys.rolling import deploy\nif host.data.get('web'):\n    deploy()\n", [ROLLOUT], True),
        ("from nixherd.deploys import nosuch\nnosuch()\n", [], True),
        ("from nixherd.deploys import deploy\n", [], True),
        ("from elsewhere import deploy\ndeploy()\n", [], True),
        ("from .deploys import deploy\ndeploy()\n", [], True),
    ],
)
def test_what_a_file_calls_it_is(
    own: Callable[[str], str], text: str, declares: list[DeployFile], is_the_operators: bool
) -> None:
    file = own(text)
    assert (flat(file), some_are_the_operators([file])) == (declares, is_the_operators)


def test_a_deploy_that_is_named_alone_is_one() -> None:
    assert flat("nixherd.deploys.deploy") == flat("nixherd.deploys:deploy") == [ROLLOUT]
    assert flat("nixherd.deploys.nosuch") == flat("nixherd.operations.nixos.gc") == []


def test_the_trees_group_data_are_not_what_was_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies there unsigned would decide over a deployment of what is signed."""
    monkeypatch.setattr(Gate, "of", lambda *_, **__: object())
    inventory._gate(tmp_path, {"group_data": ["/run/other"]}, tmp_path)
    with pytest.raises(Usage, match=r"require_signed: group_data in the fleet.s directory is not what was signed"):
        inventory._gate(tmp_path, {"group_data": [f"/run/x/{OF_THE_TREE}"]}, tmp_path)


def test_what_declares_nothing(own: Callable[[str], str], tmp_path: Path) -> None:
    for text in ("", "from pyinfra import local\nlocal.include(name)\n", "not python (", "# deploy_file('deploy')"):
        assert flat(own(text)) == []
    assert flat(str(tmp_path / "missing.py")) == []
    assert declared(["exec", "python", str(ROOT / "deploys" / "deploy.py")]) == {}


def test_whose_a_deploy_file_is_goes_by_what_it_declares(
    checkout: Path, tmp_path: Path, own: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data that none of ours asks for are the operator's own file's, wherever that stands; not a copy of ours."""
    ours = (checkout / "deploys/deploy.py").read_text()
    copied, beside = tmp_path / "deploy.py", tmp_path / "deploys"
    beside.mkdir()
    copied.write_text(ours)
    (beside / "mine.py").write_text("host.data.get('mine')\n")
    including = own("local.include('deploys/deploy.py')\nhost.data.get('mine')\n")
    cases = [
        (["deploys/deploy.py"], False),
        ([str(copied)], False),
        ([str(beside / "mine.py")], True),
        ([including], True),
        (["deploys/reboot.py", including], True),
        (["exec", "--", "true"], False),
        (["operations.nixos.rollback"], False),
    ]
    monkeypatch.setattr(inventory, "parsed_data", lambda options: {"mine": 1})  # pyinfra's parser patches on import
    assert [some_are_the_operators(words) for words, _ in cases] == [expected for _, expected in cases]
    for words, expected in cases:
        options = {"operations": words}
        if expected:
            _check_data(tmp_path, options)
        else:
            with pytest.raises(Usage, match="mine"):
                _check_data(tmp_path, options)


def test_a_declaration_is_written_out(own: Callable[[str], str]) -> None:
    for call in ("deploy_file(name)", "deploy_file('x', rollout=flag)", "deploy_file()", "deploy_file('x', **flags)"):
        with pytest.raises(Usage, match=r"own\.py:1: deploy_file\(\) takes one text, and flags written out"):
            flat(own(call))
    with pytest.raises(Usage, match=r"own\.py:1: deploy_file\(\) does not take roll"):
        flat(own("deploy_file('x', roll=True)"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["deploys/deploy.py"], {"must_answer"}),
        (["deploys/reboot.py", "deploys/deploy.py"], {"must_answer"}),
        (["deploys/provision.py"], {"may_install", "makes_machines"}),
        (["deploys/enroll.py", "deploys/provision.py", "deploys/deploy.py"], {"may_install", "makes_machines"}),
        (["deploys/install.py", "deploys/post_provision.py"], {"may_install", "makes_machines"}),
        (["deploys/enroll.py", "deploys/deploy.py"], {"must_answer", "may_install"}),
        (["deploys/deploy.py", "deploys/provision.py"], {"must_answer", "may_install", "makes_machines"}),
        (["deploys/vms.py"], {"api_only"}),
        (["deploys/check.py", "deploys/vms.py"], {"api_only"}),
        (["deploys/check.py", "deploys/deploy.py"], {"must_answer"}),
        (["deploys/secrets_check.py"], set()),
        (["exec", "--", "cat", "deploys/deploy.py"], {"must_answer"}),
        (["fact", "facts.nixos.Running"], {"must_answer"}),
        (["fact", "facts.proxmox.Guests"], {"api_only"}),
        (["operations.proxmox.resize", "size=1G"], {"api_only"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_asked_of_the_machines(checkout: Path, words: list[str], expected: set[str]) -> None:
    asked: dict[str, Any] = _asked(words, flat(*words))
    asked.pop("steps")
    assert {name for name, value in asked.items() if value} == expected


def at_prepare(declare: Callable[[], None], **data: Any) -> None:
    """Run a declaration as pyinfra does for one host, of which these are the data."""
    stub = SimpleNamespace(name="web01", data=SimpleNamespace(get=data.get))
    with ctx_host.use(stub):
        declare()


FLEET = {"context": SimpleNamespace(must_be_signed=False)}
SIGNED = {"context": SimpleNamespace(must_be_signed=True)}
DEPLOY, NODE = partial(deploy_file, "deploy", rollout=True, from_flake=True), partial(deploy_file, "n", for_nodes=True)


def test_a_file_that_nobody_foresaw_is_refused_when_it_runs() -> None:
    """One that is included by a computed path: only then is it known what it is."""
    at_prepare(DEPLOY, **FLEET)
    at_prepare(NODE, **FLEET, node="prom")
    at_prepare(DEPLOY, **SIGNED, steps=["deploy"])
    at_prepare(partial(deploy_file, "vms", asks_machines=False), **FLEET, without_order="--no-wait: say wave")
    for declare, data, said in (
        (DEPLOY, {**FLEET, "without_order": "--no-wait: say wave"}, "--no-wait: say wave"),
        (DEPLOY, {}, "deploy: web01 is not a host of inventory.py"),
        (DEPLOY, {**FLEET, "node": "prom"}, "deploy: web01 is not a host of inventory.py"),
        (NODE, FLEET, "n: web01 is not a host of nodes.py"),
        (DEPLOY, {**SIGNED, "steps": ["vms"]}, "deploy: require_signed is set"),
    ):
        with pytest.raises(Usage, match=said):
            at_prepare(declare, **data)

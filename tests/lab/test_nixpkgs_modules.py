"""The stand-in's module system keeps the habits of the real one; each case is what `nix eval` makes of its modules."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.nix_cli import try_nix

pytestmark = pytest.mark.nix

LIB = Path(__file__).parent.parent.parent / "lab" / "nixpkgs" / "lib"
# `opt "a.b" type` declares an option, `opt' "a.b" {…}` one with more to it; `config [modules]` evaluates.
PRELUDE = f"""
  let lib = import {LIB}; in with lib; with lib.types; let
    opt' = path: attrs: {{options = setAttrByPath (splitString "." path) (mkOption attrs);}};
    opt = path: type: opt' path {{inherit type;}};
    config = modules: (evalModules {{inherit modules;}}).config;
    free = {{_module.freeformType = lazyAttrsOf anything;}};
  in
"""


def evaluate(expression: str) -> subprocess.CompletedProcess[str]:
    return try_nix("eval", "--impure", "--json", "--expr", PRELUDE + expression)


def value(expression: str) -> Any:
    done = evaluate(expression)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("definitions", "expected"),
    [
        ("", 0),
        ("{a = 1;}", 1),
        ("{a = mkDefault 1;}", 1),
        ("{a = mkDefault 1;} {a = 2;}", 2),
        ("{a = 1;} {a = mkForce 2;} {a = mkDefault 3;}", 2),
        ("{a = mkOverride 60 1;} {a = mkForce 2;} {a = mkVMOverride 3;}", 3),
        ("{a = mkOptionDefault 7;} {a = mkDefault 8;}", 8),
        ("{a = mkIf false 1;} {a = mkIf true 2;}", 2),
        ("{a = mkIf false (mkForce 1);} {a = 2;}", 2),
        ("{config = mkIf true {a = 1;};}", 1),
        ("{config = mkMerge [(mkIf false {a = 1;}) {a = mkDefault 4;}];}", 4),
        ("(mkIf true {a = 9;})", 9),
        ("{a = mkMerge [(mkIf false 1) (mkDefault 2) (mkIf true 3)];}", 3),
        ("{config = mkForce {a = 5;};} {a = 6;}", 5),
        ("{a = 3;} {a = 3;}", 3),
        ('(opt\' "other" {default = 1;}) ({config, ...}: {a = mkIf (config.other == 1) 11;})', 11),
    ],
)
def test_the_strongest_definition_wins(definitions: str, expected: int) -> None:
    assert value(f'(config [(opt\' "a" {{type = int; default = 0;}}) {definitions}]).a') == expected


@pytest.mark.parametrize(
    ("kind", "definitions", "expected"),
    [
        # the later module's definitions come first
        ("(listOf int)", "{a = [1];} {a = [2];}", [2, 1]),
        ("(listOf int)", "{a = [2];} {a = mkBefore [1];} {a = mkAfter [4];} {a = [3];}", [1, 3, 2, 4]),
        ("(listOf int)", "{a = mkOrder 1400 [2];} {a = mkOrder 600 [1];}", [1, 2]),
        ("(listOf int)", "{a = [(mkIf false 1) (mkIf true 2)];}", [2]),
        ("(listOf int)", "{a = mkDefault [1];} {a = [2];}", [2]),
        ("(listOf int)", "", []),
        ("lines", '{a = "x";} {a = mkBefore "w";}', "w\nx"),
        ("commas", '{a = "x";} {a = "y";}', "y,x"),
        ("(attrsOf int)", "{a.x = 1;} {a.y = 2; a.x = mkForce 3;}", {"x": 3, "y": 2}),
        ("(attrsOf int)", "{a.x = mkIf false 1; a.y = 2;}", {"y": 2}),
        ("(attrsOf (listOf int))", "{a.x = [1];} {a.x = [2];}", {"x": [2, 1]}),
        ("(nullOr int)", "{a = null;}", None),
        ("(either int str)", '{a = "s";}', "s"),
        ("(coercedTo int toString str)", "{a = 5;}", "5"),
        ("anything", "{a.b.c = [1];} {a.b.c = [1]; a.b.d = mkDefault 1;} {a.b.d = 2;}", {"b": {"c": [1], "d": 2}}),
        ("(enum [1 2])", "{a = 2;}", 2),
        ("(uniq int)", "{a = 1;}", 1),
    ],
)
def test_types_merge_their_definitions(kind: str, definitions: str, expected: object) -> None:
    assert value(f'(config [(opt "a" {kind}) {definitions}]).a') == expected


def test_functions_merge_what_they_return() -> None:
    assert value('(config [(opt "a" (functionTo (listOf int))) {a = x: [x];} {a = x: [(x + 1)];}]).a 5') == [6, 5]


def test_submodules_know_their_name_and_take_definitions_from_several_places() -> None:
    users = value(
        """(config [
          (opt "users" (attrsOf (submodule ({name, config, ...}: {
            options.home = mkOption {type = str; default = "/home/${name}";};
            options.shell = mkOption {type = str;};
            options.upper = mkOption {type = str; default = toUpper config.shell;};
          }))))
          {users.ann.shell = "sh";}
          {users.ann = {home = "/root";}; users.bob.shell = mkDefault "zsh";}
        ]).users"""
    )
    assert users == {
        "ann": {"home": "/root", "shell": "sh", "upper": "SH"},
        "bob": {"home": "/home/bob", "shell": "zsh", "upper": "ZSH"},
    }


def test_a_submodule_is_declared_in_several_places() -> None:
    expression = """(config [
      (opt' "s" {type = submodule {options.x = mkOption {default = 1;};}; default = {};})
      (opt "s" (submodule {options.y = mkOption {default = 2;};}))
      {options.s.z = mkOption {default = 3;};}
    ]).s"""
    assert value(expression) == {"x": 1, "y": 2, "z": 3}


def test_free_form_takes_what_nobody_declared_beside_what_is() -> None:
    expression = """config [
      free (opt' "known.port" {type = port; default = 22;})
      {known.other.deep = mkDefault [1]; services.foo.enable = mkDefault true;}
      ({config, ...}: {services.foo = {enable = false; list = ["a"];}; known.seen = config.services.foo.enable;})
    ]"""
    assert value(expression) == {
        "known": {"port": 22, "other": {"deep": [1]}, "seen": False},
        "services": {"foo": {"enable": False, "list": ["a"]}},
    }


def test_lists_of_what_the_stand_in_does_not_declare_join() -> None:
    modules = "[{_module.freeformType = lazyAttrsOf undeclared;} {a.x = [1];} {a.x = mkBefore [0];} {a.x = [2];}]"
    assert value(f"(config {modules}).a.x") == [0, 2, 1]


def test_imports_come_before_what_imports_them() -> None:
    imported = '{imports = [{a = ["imported"];}]; a = ["self"];}'
    assert value(f'(config [(opt "a" (listOf str)) {imported} {{a = ["later"];}}]).a') == ["imported", "later", "self"]


def test_a_submodule_can_be_free_form_too() -> None:
    expression = """(config [
      (opt "s" (submodule {freeformType = attrsOf int; options.a = mkOption {type = str; default = "d";};})) {s.n = 1;}
    ]).s"""
    assert value(expression) == {"a": "d", "n": 1}


def test_modules_import_each_other_once_and_can_be_disabled(tmp_path: Path) -> None:
    (tmp_path / "a.nix").write_text("{imports = [./b.nix ./b.nix]; x = [1];}")
    (tmp_path / "b.nix").write_text("{lib, ...}: {x = [2];}")
    declared = '(opt "x" (listOf int))'
    assert sorted(value(f"(config [{declared} {tmp_path}/a.nix {tmp_path}/b.nix]).x")) == [1, 2]
    assert value(f"(config [{declared} {tmp_path}/a.nix {{disabledModules = [{tmp_path}/b.nix];}}]).x") == [1]


def test_modules_get_special_arguments_also_for_imports_and_module_arguments() -> None:
    expression = """(evalModules {
      specialArgs.inputs.marker = 4;
      modules = [
        ({inputs, late, ...}: {
          imports = optional (inputs.marker == 4) (opt' "a" {default = 1;});
          config.b = late + inputs.marker;
        })
        {options.b = mkOption {type = int;}; config._module.args.late = 3;}
      ];
    }).config"""
    assert value(expression) == {"a": 1, "b": 7}


def test_options_show_what_is_known_of_them() -> None:
    modules = '[(opt\' "a" {type = int; default = 2; apply = x: x * 2;}) {a = 3;} (opt "b" int)]'
    assert value(f"(config {modules}).a") == 6
    shown = value(f'mapAttrs (_: o: o.isDefined) (getAttrs ["a" "b"] (evalModules {{modules = {modules};}}).options)')
    assert shown == {"a": True, "b": False}


def test_an_evaluated_configuration_can_be_extended() -> None:
    base = '(evalModules {modules = [(opt "a" int) {a = mkDefault 1;}];})'
    assert value(f"[{base}.config.a ({base}.extendModules {{modules = [{{a = 2;}}];}}).config.a]") == [1, 2]


def test_package_options_look_their_default_up() -> None:
    pkgs = '{hello = {type = "derivation"; name = "hello"; outPath = "/nix/store/x"; marker = 1;};}'
    assert value(f'(config [{{options.p = mkPackageOption {pkgs} "hello" {{}};}}]).p.marker') == 1
    assert (
        value(f'(config [{{options.p = mkPackageOption {pkgs} "x" {{nullable = true; default = null;}};}}]).p') is None
    )


def test_renamed_and_removed_options() -> None:
    renamed = """(config [(opt "new" int) (mkRenamedOptionModule ["old"] ["new"]) {old = 5;}]).new"""
    assert value(renamed) == 5
    removed = """map (a: a.assertion) (config [
      (opt "assertions" (listOf raw)) (mkRemovedOptionModule ["gone"] "Use it no more.") {gone = 1;}
    ]).assertions"""
    assert value(removed) == [False]


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ('(opt "a.b" int) {a.b = "x";}', "A definition for option `a.b' is not of type `signed integer'"),
        ('(opt "a.b" int) {a.b = 1;} {a.b = 2;}', "The option `a.b' has conflicting definition values"),
        ('(opt "a.b" int)', "The option `a.b' was accessed but has no value defined"),
        ('(opt "a.b" int) {a.c = 1;}', "The option `a.c' does not exist"),
        ('(opt "a.b" (enum [1 2])) {a.b = 3;}', "not of type `one of 1, 2'"),
        ('(opt "a.b" int) {a = 3;}', "The option `a' has sub-options, but is set to a int"),
        ('(opt\' "a.b" {type = int; readOnly = true;}) {a.b = 1;} {a.b = 1;}', "The option `a.b' is read-only"),
        ('(opt "a.b" int) {a.b = mkIf "yes" 1;}', "non-Boolean condition for the option `a.b'"),
        (
            '(opt "a.b" (attrsOf (submodule {options.x = mkOption {type = int;};}))) {a.b.n.y = 1;}',
            "The option `a.b.n.y' does not exist",
        ),
        ('(opt "a.b" int) ({nosuch, ...}: {a.b = nosuch;})', "asks for the argument `nosuch'"),
        ('(opt "a.b" int) {options.c = mkOption {}; a.b = 1;}', "has an unsupported attribute `a'"),
        ('(opt "a.b" int) (opt "a.b" str)', "The option `a.b' in `<unknown-file>' is already declared"),
        ('(opt "a.b" port) {a.b = 70000;}', "between 0 and 65535"),
        ('(opt "a.b" (strMatching "[a-z]+")) {a.b = "A";}', "string matching the pattern [a-z]+"),
        ('(opt "a.b" (uniq int)) {a.b = 1;} {a.b = 1;}', "The option `a.b' is defined multiple times"),
        ("free {a.b = 1;} {a.b = 2;}", "The option `a.b' has conflicting definition values"),
    ],
)
def test_errors_name_the_option(modules: str, message: str) -> None:
    done = evaluate(f"builtins.deepSeq (config [{modules}]).a.b true")
    assert done.returncode != 0
    assert message in done.stderr


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "wrong.nix").write_text('{a = "text";}')
    done = evaluate(f'(config [(opt "a" int) {tmp_path}/wrong.nix]).a')
    assert f'In `{tmp_path}/wrong.nix\': "text"' in done.stderr


def test_a_condition_may_depend_on_what_it_does_not_define() -> None:
    """Conditions move onto the attributes, so which ones there are depends on none."""
    expression = """(config [
      free (opt' "a" {type = int; default = 1;})
      ({config, ...}: {config = mkIf (config.a == 1) {b.c = 2; networking.x = config.b.c;};})
    ]).networking.x"""
    assert value(expression) == 2

# The fleet's commands, for `nix run .#NAME`, `nix fmt` and `nix develop`. Each is a script beside this file or in vms/.
# Those that work with machines call nixherd, from PATH or NIXHERD.
{pkgs}: let
  inherit (pkgs) lib;
  command = name: {
    description,
    scripts,
    inputs ? [],
  }:
    pkgs.writeShellApplication {
      inherit name;
      runtimeInputs = inputs;
      text = lib.concatMapStrings builtins.readFile scripts;
      meta = {inherit description;};
    };
  commands = {
    fmt-nix = {
      description = "Format the fleet's Nix files by Alejandra, or list unformatted ones";
      scripts = [./here.sh ./fmt-nix.sh];
      inputs = [pkgs.alejandra pkgs.coreutils pkgs.diffutils pkgs.findutils pkgs.git pkgs.gnugrep];
    };
    lint-nix = {
      description = "Check the fleet's Nix files for dead code and bad style with deadnix and statix";
      scripts = [./here.sh ./lint-nix.sh];
      inputs = [pkgs.deadnix pkgs.statix pkgs.coreutils pkgs.gnugrep];
    };
    check = {
      description = "The quality gate: nixherd check";
      scripts = [./here.sh ./check.sh];
      inputs = [pkgs.alejandra pkgs.deadnix pkgs.statix];
    };
    provision-vm = {
      description = "Create a virtual machine from its definition and put it into service: nixherd provision";
      scripts = [./here.sh ../vms/provision.sh];
      inputs = [pkgs.sops];
    };
    post-provision-vm = {
      description = "Put an installed virtual machine into service: nixherd post-provision";
      scripts = [./here.sh ../vms/post-provision.sh];
      inputs = [pkgs.sops];
    };
    proxmox-ops = {
      description = "List, start and stop virtual machines: a short form of nixherd vm";
      scripts = [./here.sh ../vms/proxmox-ops.sh];
    };
  };
in {
  packages = lib.mapAttrs command commands;
  apps =
    lib.mapAttrs (name: script: {
      type = "app";
      program = lib.getExe (command name script);
      meta = {inherit (script) description;};
    })
    commands;
}

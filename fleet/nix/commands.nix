# The fleet's commands, for `nix run .#NAME`, `nix fmt` and `nix develop`. Each is a script of its own beside this file or in
# vms/. Those that ask something of machines are fronts of nixherd, which they take from PATH or NIXHERD.
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
      description = "Format the fleet's Nix files by Alejandra, or say which are not formatted";
      scripts = [./here.sh ./fmt-nix.sh];
      inputs = [pkgs.alejandra pkgs.coreutils pkgs.diffutils pkgs.findutils pkgs.git pkgs.gnugrep];
    };
    lint-nix = {
      description = "Look for dead code and bad habits in the fleet's Nix files by deadnix and statix";
      scripts = [./here.sh ./lint-nix.sh];
      inputs = [pkgs.deadnix pkgs.statix pkgs.coreutils pkgs.gnugrep];
    };
    check = {
      description = "The quality gate: nixherd check";
      scripts = [./here.sh ./check.sh];
      inputs = [pkgs.alejandra pkgs.deadnix pkgs.statix];
    };
    provision-vm = {
      description = "Make a virtual machine out of its definition and take it into service: nixherd provision";
      scripts = [./here.sh ../vms/provision.sh];
      inputs = [pkgs.sops];
    };
    post-provision-vm = {
      description = "Take an installed virtual machine into service: nixherd post-provision";
      scripts = [./here.sh ../vms/post-provision.sh];
      inputs = [pkgs.sops];
    };
    proxmox-ops = {
      description = "Look at virtual machines, start and stop them: a short front of nixherd vm";
      scripts = [./here.sh ../vms/proxmox-ops.sh];
    };
  };
in {
  packages = lib.mapAttrs command commands;
  apps =
    lib.mapAttrs (name: about: {
      type = "app";
      program = lib.getExe (command name about);
      meta = {inherit (about) description;};
    })
    commands;
}

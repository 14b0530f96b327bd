# The system's programs and its environment variables.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.environment;
  packages = cfg.systemPackages ++ cfg.defaultPackages ++ lib.concatMap (u: u.packages) (lib.attrValues config.users.users);
  # Programs that scripts call by path below /run/current-system/sw/bin; Debian's others are on PATH.
  debian = [
    "bash"
    "cat"
    "cp"
    "env"
    "false"
    "findmnt"
    "git"
    "hostname"
    "id"
    "ip"
    "journalctl"
    "ln"
    "ls"
    "mkdir"
    "mount"
    "mv"
    "nix"
    "nix-build"
    "nix-channel"
    "nix-collect-garbage"
    "nix-copy-closure"
    "nix-daemon"
    "nix-env"
    "nix-instantiate"
    "nix-shell"
    "nix-store"
    "readlink"
    "rm"
    "sh"
    "sha256sum"
    "ssh"
    "ssh-keygen"
    "sudo"
    "systemctl"
    "systemd-run"
    "test"
    "true"
    "umount"
    "uname"
  ];
  value = v:
    if lib.isList v
    then lib.concatStringsSep ":" v
    else toString v;
  variables = lib.mapAttrs (_: value) (lib.filterAttrs (_: v: v != null) (cfg.variables // cfg.sessionVariables));
  path = "/run/wrappers/bin:/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/usr/sbin";
  variable = types.nullOr (types.oneOf [(types.listOf (types.oneOf [types.int types.str types.path])) types.int types.str types.path]);
in {
  options.environment = {
    systemPackages = mkOption {
      type = types.listOf types.package;
      default = [];
    };
    defaultPackages = mkOption {
      type = types.listOf types.package;
      default = [];
    };
    corePackages = mkOption {
      type = types.listOf types.package;
      default = [];
    };
    pathsToLink = mkOption {
      type = types.listOf types.str;
      default = [];
    };
    extraInit = mkOption {
      type = types.lines;
      default = "";
    };
    extraOutputsToInstall = mkOption {
      type = types.listOf types.str;
      default = [];
    };
    shellInit = mkOption {
      type = types.lines;
      default = "";
    };
    loginShellInit = mkOption {
      type = types.lines;
      default = "";
    };
    interactiveShellInit = mkOption {
      type = types.lines;
      default = "";
    };
    variables = mkOption {
      type = types.attrsOf variable;
      default = {};
    };
    sessionVariables = mkOption {
      type = types.attrsOf variable;
      default = {};
    };
    shellAliases = mkOption {
      type = types.attrsOf (types.nullOr types.str);
      default = {};
    };
    shells = mkOption {
      type = types.listOf types.unspecified;
      default = [];
    };
    binsh = mkOption {
      type = types.path;
      default = "/usr/bin/sh";
    };
    localBinInPath = mkOption {
      type = types.bool;
      default = false;
    };
  };

  config = {
    system.path = pkgs.runCommand "system-path" {nixosVersion = config.system.build.nixosVersionScript;} ''
      mkdir -p "$out/bin"
      ln -s -t "$out/bin" ${lib.concatMapStringsSep " " (program: "/usr/bin/${program}") debian}
      for package in ${lib.concatMapStringsSep " " toString (lib.unique (map (p: "${p}") packages))}; do
        for part in bin sbin share etc lib; do
          # a directory that is a link leads out of the store, to Debian's programs
          if [ -d "$package/$part" ] && [ ! -L "$package/$part" ]; then mkdir -p "$out/$part"; cp -rsf --no-preserve=mode "$package/$part/." "$out/$part"; fi
        done
      done
      printf %s "$nixosVersion" >"$out/bin/nixos-version"
      chmod +x "$out/bin/nixos-version"
      ln -s bin "$out/sbin" 2>/dev/null || true
    '';
    environment.etc = {
      # read by PAM: the environment of commands over SSH, of sudo and of services with PAMName=
      environment.text = lib.concatMapStrings (line: line + "\n") (["PATH=${path}"] ++ lib.mapAttrsToList (n: v: "${n}=\"${v}\"") variables);
      set-environment.text = lib.concatMapStrings (line: line + "\n") (
        ["export PATH=${path}"] ++ lib.mapAttrsToList (n: v: "export ${n}=${lib.escapeShellArg v}") variables ++ [cfg.extraInit]
      );
      profile.text = ''
        . /etc/set-environment
        ${cfg.shellInit}
        ${cfg.loginShellInit}
        if [ -n "''${BASH_VERSION:-}" ] && [ -e /etc/bash.bashrc ]; then . /etc/bash.bashrc; fi
      '';
      "bash.bashrc".text = ''
        case $- in *i*) ;; *) return ;; esac
        PS1='[\u@\h:\w]\$ '
        ${lib.concatStrings (lib.mapAttrsToList (n: v: lib.optionalString (v != null) "alias -- ${n}=${lib.escapeShellArg v}\n") cfg.shellAliases)}
        ${cfg.interactiveShellInit}
      '';
      shells.text = "/run/current-system/sw/bin/bash\n/run/current-system/sw/bin/sh\n/usr/bin/bash\n/bin/sh\n";
    };
  };
}

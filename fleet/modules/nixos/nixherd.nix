# What deployments need from a machine: the checks before a new system is kept, and the access that they have.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.nixherd;
  maybe = type: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description;
    };

  # A dedicated user receives closures, and this program activates them; nothing else runs, whatever was
  # requested.
  receiver = "nixherd-push";
  pushed = pkgs.writeShellScript "nixherd-pushed" ''
    exec ${pkgs.coreutils}/bin/env -i HOME=/root PATH=${lib.makeBinPath [config.nix.package pkgs.util-linux pkgs.coreutils]} \
      SSH_ORIGINAL_COMMAND="''${SSH_ORIGINAL_COMMAND:-}" \
      /bin/sh ${./pushed.sh} ${receiver} ${lib.escapeShellArg (toString cfg.trustedKeys)} ${import ./program.nix}
  '';
  # The machine pulls its configuration itself. The last line is what it runs afterwards; before that are the old and
  # new system with their recorded revisions.
  triggered = pkgs.writeShellScript "nixherd-triggered" ''
    kind=system
    . ${./revisions.sh}
    runs() { noted_of "$(readlink -f /run/current-system)" && echo "''${noted:-$(readlink -f /run/current-system)}"; }
    echo "was=$(runs)"
    ${cfg.access.trigger} || exit
    echo "noted=$(runs)"
    readlink -f /run/current-system
  '';
  # sshd uses the first line that has a key.
  material = key: builtins.match "(.* )?((ssh|ecdsa|sk)-[^ ]+ [^ ]+)( .*)?" key;
  plain = builtins.filter (line: !lib.hasInfix "command=" line) config.users.users.root.openssh.authorizedKeys.keys;
  alsoPlain = builtins.filter (key: builtins.any (line: same key line) plain) cfg.access.keys;
  same = one: other: let
    a = material one;
    b = material other;
  in
    if a == null || b == null
    then one == other
    else builtins.elemAt a 1 == builtins.elemAt b 1;
  command =
    if cfg.access.kind == "trigger"
    then triggered
    else pushed;
in {
  options.nixherd.healthChecks = mkOption {
    description = "Checks by name, each with one of unit, command, tcp and http; they run on the machine itself.";
    default = {};
    type = types.attrsOf (types.submodule {
      options = {
        unit = maybe types.str "A unit that must be active.";
        command = maybe types.str "A shell command, run as root, that must exit with 0.";
        tcp = maybe (types.either types.port types.str) "A port, or HOST:PORT, that must accept a connection.";
        http = maybe types.str "An http:// URL that must answer.";
        status = maybe types.int "The expected status; default 200.";
        timeout = maybe types.int "Seconds until it must pass; default 30.";
      };
    });
  };

  options.nixherd.trustedKeys = mkOption {
    type = types.listOf types.singleLineStr;
    default = [];
    description = "Public keys (NAME:BASE64) for signed closures: this machine accepts them from anybody.";
  };

  options.nixherd.access = {
    kind = mkOption {
      type = types.enum ["shell" "push-closure" "trigger"];
      default = "shell";
      description = "The access of deployments; except for shell, their keys run one program and nothing else.";
    };
    keys = mkOption {
      type = types.listOf types.singleLineStr;
      default = [];
      description = "Public keys of those who deploy.";
    };
    trigger = mkOption {
      type = types.str;
      default = "systemctl start --wait ${
        if config.nixherd.pull.from == null
        then "nixos-upgrade"
        else "nixherd-pull"
      }.service";
      description = "The command that pulls and switches.";
    };
  };

  config = lib.mkMerge [
    {nix.settings.trusted-public-keys = cfg.trustedKeys;}
    (lib.mkIf (cfg.access.kind != "shell") {
      users.users.root.openssh.authorizedKeys.keys = map (key: "restrict,command=\"${command}\" ${key}") cfg.access.keys;
      services.openssh.settings.PermitRootLogin = "forced-commands-only";
      assertions = [
        {
          assertion = alsoPlain == [];
          message = "nixherd.access: ${lib.concatStringsSep ", " alsoPlain} is also in users.users.root.openssh.authorizedKeys.keys, without the forced command. sshd uses only the first entry of a key: remove it from one of the two.";
        }
      ];
    })
    (lib.mkIf (cfg.access.kind == "push-closure") {
      users.users.${receiver} = {
        description = "Receives pushed closures";
        isSystemUser = true;
        group = receiver;
      };
      users.groups.${receiver} = {};
      assertions = [
        {
          assertion = cfg.trustedKeys != [];
          message = "nixherd.access.kind = \"push-closure\" accepts only signed closures: list their keys in nixherd.trustedKeys.";
        }
        {
          assertion = config.nix.settings.require-sigs && lib.intersectLists ["*" receiver "@${receiver}"] config.nix.settings.trusted-users == [];
          message = "nixherd.access.kind = \"push-closure\" accepts only signed closures: nix.settings.require-sigs must be true, and ${receiver} not a trusted user.";
        }
      ];
    })
  ];
}

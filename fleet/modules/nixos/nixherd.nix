# What deployments ask of a machine: what has to be seen before a new system is kept, and how far it lets them in.
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

  # Closures are received, and this program activates them; nothing else is run, whatever was asked for.
  pushed = pkgs.writeShellScript "nixherd-pushed" ''
    set -f
    case ''${SSH_ORIGINAL_COMMAND:-} in
    "nix-store --serve --write") exec nix-store --serve --write ;;
    "nixherd "*)
      set -- $SSH_ORIGINAL_COMMAND
      case $2 in begin | look | say | last) shift; exec sh ${import ./program.nix} system "$@" ;; esac
      ;;
    esac
    echo "this key may push closures and activate them" >&2
    exit 1
  '';
  # The machine pulls its configuration itself, and says in its last line what it runs then.
  triggered = pkgs.writeShellScript "nixherd-triggered" ''
    ${cfg.access.trigger} || exit
    readlink -f /run/current-system
  '';
  command =
    if cfg.access.kind == "trigger"
    then triggered
    else pushed;
in {
  options.nixherd.healthChecks = mkOption {
    description = "Checks by name, each with one of unit, command, tcp and http; the machine asks itself.";
    default = {};
    type = types.attrsOf (types.submodule {
      options = {
        unit = maybe types.str "A unit that has to be active.";
        command = maybe types.str "A shell text, run by root, that has to end with 0.";
        tcp = maybe (types.either types.port types.str) "A port, or HOST:PORT, that has to take a connection.";
        http = maybe types.str "An http:// URL that has to answer.";
        status = maybe types.int "With which status; 200 unless said.";
        timeout = maybe types.int "Seconds in which it has to pass; 30 unless said.";
      };
    });
  };

  options.nixherd.access = {
    kind = mkOption {
      type = types.enum ["shell" "push-closure" "trigger"];
      default = "shell";
      description = "What a deployment may do here; other than shell, its keys run one program and nothing else.";
    };
    keys = mkOption {
      type = types.listOf types.str;
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
      description = "What pulls and switches.";
    };
  };

  config = lib.mkIf (cfg.access.kind != "shell") {
    users.users.root.openssh.authorizedKeys.keys = map (key: "restrict,command=\"${command}\" ${key}") cfg.access.keys;
    services.openssh.settings.PermitRootLogin = "forced-commands-only";
  };
}

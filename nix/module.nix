# What a configuration says of itself to nixherd, where no hosts.nix does: for NixOS and Home Manager alike. Nothing
# of it is in the system; what is left at null is said elsewhere, or has the default of docs/fields.md.
{lib, ...}: let
  inherit (lib) mkOption types;
  maybe = type: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description;
    };
in {
  options.nixherd = {
    address = maybe (types.either types.str (types.listOf types.str)) ''
      Where it is tried, in this order, before a hypervisor is asked where it is: names or addresses without ports.
    '';
    user = maybe types.str "The admin user, who logs in there.";
    become = maybe (types.enum ["sudo" "doas"]) "How its user is root.";
    port = maybe types.port "Where its sshd listens.";
    jump = maybe (types.either types.str (types.listOf types.str)) ''
      Through which hosts it is reached, in their order: ids of hosts of the fleet, or [USER@]NAME[:PORT].
    '';
    publicKey = maybe types.singleLineStr "The machine's SSH host key, the only one that is accepted.";
    tags = mkOption {
      type = types.listOf types.str;
      default = [];
      description = "Groups that select it (`--limit`).";
    };
    wave = maybe types.ints.positive "Waves are deployed to in their order, each when those before it are proven.";
    canary = maybe types.bool "It is deployed to before all others.";
    role = maybe types.str "Hosts of one role are not activated at the same time.";
    buildOn = maybe types.str "Who builds its system: local, target, or a host of the fleet.";
  };
}

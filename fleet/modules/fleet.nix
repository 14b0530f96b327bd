# What the modules know of the fleet: its hosts, and which of them this machine or home is of. nix/lib.nix says it by
# special arguments; whoever imports the modules into another flake sets the options, or leaves them out.
{
  lib,
  specialArgs,
  ...
}: let
  inherit (lib) mkOption types;
  # Another flake may have special arguments of these names with another meaning: all three are ours, or none is.
  ours = specialArgs ? hostname && specialArgs ? hostConfig && specialArgs ? allHosts;
  given = name: otherwise:
    if ours
    then specialArgs.${name}
    else otherwise;
in {
  options.homelab.fleet = {
    id = mkOption {
      type = types.nullOr types.str;
      default = given "hostname" null;
      defaultText = lib.literalMD "the special argument `hostname`, otherwise null";
      description = "The id of this host: its attribute's name in hosts.nix.";
    };
    host = mkOption {
      type = types.nullOr (types.attrsOf types.raw);
      default = given "hostConfig" null;
      defaultText = lib.literalMD "the special argument `hostConfig`, otherwise null";
      description = "The entry of this host in hosts.nix.";
    };
    hosts = mkOption {
      type = types.attrsOf types.raw;
      default = given "allHosts" {};
      defaultText = lib.literalMD "the special argument `allHosts`, otherwise empty";
      description = "hosts.nix: every host of the fleet by its id.";
    };
    secrets = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = "The directory of the files encrypted with sops.";
    };
  };
}

# The modules' access to the fleet: its hosts, and the host of this machine or home. nix/lib.nix passes it as special
# arguments; flakes that import the modules set the options instead, or leave them out.
{
  lib,
  specialArgs,
  ...
}: let
  inherit (lib) mkOption types;
  # Another flake may use special arguments of these names for something else: ours are used only if all three match.
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

# The programs in ./scripts: each NAME.sh is the command NAME. The directory is a path literal, so that a home's closure
# contains only these files of the fleet's tree.
{
  config,
  lib,
  pkgs,
  ...
}: let
  # Programs that a script needs beside the usual tools.
  needs = {
    system-diff = [pkgs.nvd];
    unpack = [pkgs.libarchive];
  };
  names = lib.filter (lib.hasSuffix ".sh") (lib.attrNames (builtins.readDir ./scripts));
  program = file: let
    name = lib.removeSuffix ".sh" file;
  in
    pkgs.writeShellApplication {
      inherit name;
      runtimeInputs = [pkgs.coreutils] ++ needs.${name} or [];
      text = builtins.readFile (./scripts + "/${file}");
    };
in {
  options.homelab.scripts.enable = lib.mkEnableOption "the fleet's small commands: system-diff, reboot-pending, unpack";

  config = lib.mkIf config.homelab.scripts.enable {
    home.packages = map program names;
  };
}

# The programs of ./scripts: each NAME.sh there is the command NAME. Their directory is a path literal, so that of the
# fleet's tree only their own text is in a home's closure.
{
  config,
  lib,
  pkgs,
  ...
}: let
  # What a script calls beside the usual tools.
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
  options.homelab.scripts.enable = lib.mkEnableOption "the fleet's small programs: system-diff, reboot-pending, unpack";

  config = lib.mkIf config.homelab.scripts.enable {
    home.packages = map program names;
  };
}

# Services that a machine runs for the fleet.
{
  imports = [
    ./rolling-flake-update.nix
  ];
}

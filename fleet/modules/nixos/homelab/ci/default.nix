# What a machine does for the fleet between two commits.
{
  imports = [
    ./rolling-flake-update.nix
  ];
}

# NixOS modules, for every NixOS host.
{
  imports = [
    ./fleetwright.nix
    ./pull.nix
    ./profiles/base.nix
  ];
}

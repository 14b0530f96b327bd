# NixOS modules, for every NixOS host.
{
  imports = [
    ./fleetwright.nix
    ./profiles/base.nix
  ];
}

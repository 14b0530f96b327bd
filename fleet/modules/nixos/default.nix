# NixOS modules, for every NixOS host. What our own hosts start from is profiles/base.nix, which nix/lib.nix adds.
{
  imports = [
    ../fleet.nix
    ./nixherd.nix
    ./pull.nix
    ./homelab
  ];
}

# NixOS modules for every NixOS host. The profile of our own hosts is profiles/base.nix, which nix/lib.nix adds.
{
  imports = [
    ../fleet.nix
    ./nixherd.nix
    ./pull.nix
    ./homelab
  ];
}

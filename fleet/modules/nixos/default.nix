# NixOS modules, for every NixOS host.
{
  imports = [
    ./nixherd.nix
    ./pull.nix
    ./homelab
    ./profiles/base.nix
  ];
}

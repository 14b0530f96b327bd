# NixOS modules, for every NixOS host.
{
  imports = [
    ./nixherd.nix
    ./pull.nix
    ./profiles/base.nix
  ];
}

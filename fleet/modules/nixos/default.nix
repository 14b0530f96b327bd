# NixOS modules, for every NixOS host.
{
  imports = [./profiles/base.nix];
}

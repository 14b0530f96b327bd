# The homelab.* modules: what a machine of this fleet may be, each off until a host (or profiles/base.nix) says so.
{
  imports = [
    ./stacks
  ];
}

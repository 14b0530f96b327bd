# The homelab.* modules: what a machine of this fleet may be, each off until a host (or profiles/base.nix) says so.
{
  imports = [
    ./cache.nix
    ./ci
    ./github-runner.nix
    ./nginx.nix
    ./nix-caches.nix
    ./ssh.nix
    ./stacks
    ./tailscale.nix
    ./update
  ];
}

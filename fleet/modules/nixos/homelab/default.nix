# The homelab.* modules: optional roles of a machine, each disabled until a host (or profiles/base.nix) enables it.
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

# proxmox-vm, called doc1: VM 104, the fleet's cache server, CI runner and Docker host.
{
  config,
  lib,
  ...
}: {
  imports = [
    ./docker.nix
    ./hardware-configuration.nix
  ];

  boot.loader.systemd-boot.enable = false;
  boot.loader.grub.enable = true;
  boot.loader.grub.device = "/dev/sda";
  services.qemuGuest.enable = true;

  # Internet access is through a tunnel.
  networking.interfaces.ens18.mtu = 1400;

  virtualisation.docker.enable = true;

  homelab = {
    # It follows its own rolling update like every machine, and reboots at night for a new kernel.
    update = {
      enable = true;
      updateDates = "03:00";
      gcDates = "03:30";
      rebootOnKernelUpdate = true;
    };
    ci.rollingFlakeUpdate = {
      enable = true;
      repoDir = "/home/abl030/nixosconfig";
      tokenFile = config.sops.secrets.forge_token.path;
    };

    cache = {
      enable = true;
      localHost = "nixcache.ablz.au";
      mirrorHost = "nix-mirror.ablz.au";
      nixServeSecretKeyFile = config.sops.secrets.nix_serve_key.path;
    };
    nginx = {
      acmeEmail = "acme@ablz.au";
      cloudflareSopsFile = ../../secrets/acme-cloudflare.env;
    };
    nixCaches.profile = "server";

    services.githubRunner = {
      enable = true;
      repoUrl = "https://github.com/abl030/nixosconfig";
      runnerName = "proxmox-bastion";
      tokenFile = config.sops.secrets.github_runner_token.path;
    };
  };

  sops.secrets = lib.genAttrs ["forge_token" "github_runner_token" "nix_serve_key"] (_: {
    sopsFile = ../../secrets/proxmox-vm.yaml;
  });

  system.stateVersion = "25.11";
}

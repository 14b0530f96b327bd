# The base of every NixOS host. Everything here is a default that a host overrides by setting it. Only lists are plain:
# other definitions add to them, while a default would vanish (and with it keys and sudo).
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) genAttrs mkDefault mkIf;
  inherit (config.homelab.fleet) host;
  keys = host.authorizedKeys or [];

  # The fleet's cache, served by proxmox-vm. The key is an example: put your own here, and its private half into
  # secrets/proxmox-vm.yaml (nix key generate-secret --key-name nixcache.ablz.au-1).
  cache = "https://nixcache.ablz.au";
  cacheKey = "nixcache.ablz.au-1:/V5cVG+buz7tRxz8SSqlDKXCQ/pxXp7sxmB6F5f0F6U=";
in {
  networking.hostName = mkIf (host != null) (mkDefault host.hostname);
  time.timeZone = mkDefault "Australia/Perth";
  i18n.defaultLocale = mkDefault "en_GB.UTF-8";
  # English as in Britain; dates, money and paper as in Australia.
  i18n.extraLocaleSettings = genAttrs [
    "LC_ADDRESS"
    "LC_IDENTIFICATION"
    "LC_MEASUREMENT"
    "LC_MONETARY"
    "LC_NAME"
    "LC_NUMERIC"
    "LC_PAPER"
    "LC_TELEPHONE"
    "LC_TIME"
  ] (_: mkDefault "en_AU.UTF-8");

  # UEFI, as on new machines; a host with another boot loader disables this one.
  boot.loader.systemd-boot.enable = mkDefault true;
  boot.loader.efi.canTouchEfiVariables = mkDefault true;
  services.fstrim.enable = mkDefault true;

  nix.settings = {
    experimental-features = ["nix-command" "flakes"];
    auto-optimise-store = mkDefault true;
    # Only root is trusted: every process of a trusted user is effectively root, without a password. Closures built
    # elsewhere arrive through sudo, or are signed by a key of nixherd.trustedKeys.
  };
  # Keys whose closures are accepted from anybody: the public half of what `sign_with` names.
  # nixherd.trustedKeys = ["laptop-1:…"];

  homelab = {
    ssh = {
      enable = mkDefault true;
      secure = mkDefault true;
    };
    tailscale = {
      enable = mkDefault true;
      lanSubnets = ["192.168.1.0/24"];
    };
    nixCaches = {
      enable = mkDefault true;
      profile = mkDefault "internal";
      nixServe.url = mkDefault cache;
      nixServe.publicKey = mkDefault cacheKey;
      mirror.url = mkDefault "https://nix-mirror.ablz.au";
    };
    # Enabled by a host; it then follows what proxmox-vm's rolling update publishes.
    update = {
      enable = mkDefault false;
      collectGarbage = mkDefault true;
      trim = mkDefault true;
      rebootOnKernelUpdate = mkDefault false;
    };
  };
  nixherd.pull = mkIf config.homelab.update.enable {
    from = mkDefault cache;
    publicKey = mkDefault cacheKey;
  };

  # Users who may log in may log in as root, by key: a newly installed machine has no password for sudo yet. With
  # restricted access (nixherd.access), root has only the deployments' keys.
  users.users =
    {root.openssh.authorizedKeys.keys = mkIf (config.nixherd.access.kind == "shell") keys;}
    // lib.optionalAttrs (host != null) {
      ${host.user} = {
        isNormalUser = mkDefault true;
        home = mkDefault host.homeDirectory;
        extraGroups = ["wheel"];
        initialHashedPassword = mkDefault (host.initialHashedPassword or null);
        openssh.authorizedKeys.keys = keys;
      };
    };
  security.sudo.wheelNeedsPassword = mkDefault (!(host.sudoPasswordless or false));

  environment.systemPackages = [
    pkgs.git
    pkgs.vim
    pkgs.wget
    pkgs.home-manager
    pkgs.nvd
  ];

  # Prints what a deployment changes, to its journal; also for a dry activation. It never stops one.
  system.activationScripts.diff = {
    supportsDryActivation = mkDefault true;
    text = mkDefault ''
      if [[ -e /run/current-system && $(readlink -f /run/current-system) != "$systemConfig" ]]; then
        ${pkgs.nvd}/bin/nvd --nix-bin-dir=${config.nix.package}/bin diff /run/current-system "$systemConfig" || echo "nvd: the changes could not be shown"
      fi
    '';
  };
}

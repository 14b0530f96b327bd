# What every NixOS host starts from. All of it are defaults: a host says otherwise by saying so. Lists alone are plain:
# what a host or another module says is added to them, where a default would vanish (and with it keys and sudo).
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

  # UEFI, as new machines have it; a host with another boot loader switches this one off.
  boot.loader.systemd-boot.enable = mkDefault true;
  boot.loader.efi.canTouchEfiVariables = mkDefault true;
  services.fstrim.enable = mkDefault true;

  nix.settings = {
    experimental-features = ["nix-command" "flakes"];
    auto-optimise-store = mkDefault true;
    # Nobody but root is trusted: a trusted user's every process is root, without a password. Closures that were built
    # elsewhere are taken from root's hands (sudo), or signed by a key of nixherd.trustedKeys.
  };
  # Whose closures are taken from anybody: the public half of what `sign_with` names.
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
    # On where a host says so; what it then follows is what proxmox-vm's rolling update has published.
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

  # Who may log in may log in as root, by key: a machine that was just installed has no password for sudo yet.
  users.users =
    {root.openssh.authorizedKeys.keys = keys;}
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

  # What a deployment changes, in its journal; also of a dry activation. It never hinders one.
  system.activationScripts.diff = {
    supportsDryActivation = mkDefault true;
    text = mkDefault ''
      if [[ -e /run/current-system && $(readlink -f /run/current-system) != "$systemConfig" ]]; then
        ${pkgs.nvd}/bin/nvd --nix-bin-dir=${config.nix.package}/bin diff /run/current-system "$systemConfig" || echo "nvd: what changes could not be shown"
      fi
    '';
  };
}

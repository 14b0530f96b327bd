# What every NixOS host starts from. All of it are defaults: a host says otherwise by saying so. Lists alone are plain:
# what a host or another module says is added to them, where a default would vanish (and with it keys and sudo).
{
  hostConfig,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault;
in {
  networking.hostName = mkDefault hostConfig.hostname;
  time.timeZone = mkDefault "Australia/Perth";
  i18n.defaultLocale = mkDefault "en_GB.UTF-8";

  nix.settings = {
    experimental-features = ["nix-command" "flakes"];
    auto-optimise-store = mkDefault true;
    # Nobody but root is trusted: a trusted user's every process is root, without a password. Closures that were built
    # elsewhere are taken from root's hands (sudo), or signed by a key of nixherd.trustedKeys.
  };
  # Whose closures are taken from anybody: the public half of what `sign_with` names.
  # nixherd.trustedKeys = ["laptop-1:…"];

  users.users.${hostConfig.user} = {
    isNormalUser = mkDefault true;
    home = mkDefault hostConfig.homeDirectory;
    extraGroups = ["wheel"];
    initialHashedPassword = mkDefault (hostConfig.initialHashedPassword or null);
    openssh.authorizedKeys.keys = hostConfig.authorizedKeys;
  };
  security.sudo.wheelNeedsPassword = mkDefault (!(hostConfig.sudoPasswordless or false));

  services.openssh = {
    enable = mkDefault true;
    settings = {
      PasswordAuthentication = mkDefault false;
      KbdInteractiveAuthentication = mkDefault false;
      PermitRootLogin = mkDefault "prohibit-password";
    };
  };

  environment.systemPackages = [
    pkgs.git
    pkgs.vim
    pkgs.wget
    pkgs.home-manager
    pkgs.nvd
  ];
}

# The home of the admin on framework. Plasma has its own bar, lock, look and file manager.
{pkgs, ...}: {
  imports = [../common/home.nix ../common/shell.nix];

  homelab = {
    display.enable = true;
    mime = {
      enable = true;
      browser = "firefox.desktop";
    };
    pdf.enable = true;
    player.enable = true;
  };

  home.packages = [pkgs.firefox];

  home.stateVersion = "25.11";
}

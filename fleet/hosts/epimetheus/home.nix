# The home of the admin on epimetheus: a Hyprland session, with the parts that Hyprland itself lacks.
{pkgs, ...}: {
  imports = [../common/home.nix ../common/shell.nix];

  homelab = {
    display.enable = true;
    waybar.enable = true;
    hypridle = {
      enable = true;
      lockTimeout = 300;
      suspendTimeout = 1800;
    };
    gtk.enable = true;
    qt.enable = true;
    dolphin.enable = true;
    # Connect with `ssh -L 5900:127.0.0.1:5900 epi`.
    remote-desktop.enable = true;
    mime = {
      enable = true;
      browser = "firefox.desktop";
      editor = "nvim.desktop";
    };

    pdf.enable = true;
    player.enable = true;
    music.enable = true;
  };

  home.packages = [
    pkgs.firefox
    pkgs.neovim
  ];

  home.stateVersion = "25.11";
}

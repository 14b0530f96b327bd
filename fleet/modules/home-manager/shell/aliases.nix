# Aliases in every shell that Home Manager manages. A home overrides them with home.shellAliases.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf;
in {
  options.homelab.aliases.enable = mkEnableOption "the fleet's aliases, in a bash that Home Manager manages (it writes ~/.bashrc)";

  config = mkIf config.homelab.aliases.enable {
    programs.bash.enable = mkDefault true;
    home.packages = [pkgs.eza];
    home.shellAliases = lib.mapAttrs (_: mkDefault) {
      ".." = "cd ..";
      "..." = "cd ../..";
      ls = "eza --group-directories-first";
      ll = "eza --group-directories-first --long --git";
      la = "eza --group-directories-first --long --all";
      tree = "eza --tree --level 3";

      g = "git";
      gs = "git status --short --branch";
      gd = "git diff";
      gl = "git log --oneline --graph --max-count 30";

      failed = "systemctl --failed";
      follow = "journalctl --follow --lines 50 --unit";
      listening = "ss --listening --tcp --udp --numeric --processes";
    };
  };
}

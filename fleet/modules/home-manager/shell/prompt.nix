# The prompt. In a fleet it always starts with the machine's name, not only over SSH.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf;
in {
  options.homelab.prompt.enable = mkEnableOption "the prompt, Starship, in a bash that Home Manager manages (it writes ~/.bashrc)";

  config = mkIf config.homelab.prompt.enable {
    programs.bash.enable = mkDefault true;
    programs.starship = {
      enable = true;
      settings = lib.mapAttrs (_: mkDefault) {
        add_newline = false;
        format = "$username$hostname$directory$git_branch$git_status$nix_shell$cmd_duration$jobs$status$character";
        command_timeout = 1000;
        hostname = {
          ssh_only = false;
          format = "[$hostname]($style) ";
          style = "bold green";
        };
        username = {
          show_always = false;
          format = "[$user]($style)@";
        };
        directory.truncation_length = 4;
        status.disabled = false;
        cmd_duration.min_time = 5000;
        nix_shell.format = "[nix]($style) ";
      };
    };
  };
}

# bash, its prompt and aliases. A session's variables are in a file of the profile, which ~/.profile reads.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkIf mkOption types;
  inherit (import ./options.nix lib) lines set switch;
  bash = config.programs.bash;
  starship = config.programs.starship;
  aliases = lib.concatStrings (lib.mapAttrsToList (name: command: "alias -- ${name}=${lib.escapeShellArg command}\n") bash.shellAliases);
in {
  options.programs = {
    bash =
      switch
      // {
        initExtra = lines;
        bashrcExtra = lines;
        profileExtra = lines;
        shellAliases = mkOption {
          type = types.attrsOf types.str;
          default = {};
        };
      };
    starship = switch // {settings = set;};
  };

  config = lib.mkMerge [
    {programs.bash.shellAliases = config.home.shellAliases;}
    (mkIf bash.enable {
      home.file = {
        ".profile".text = ''
          . "${config.home.sessionVariablesPackage}/etc/profile.d/hm-session-vars.sh"
          ${bash.profileExtra}
        '';
        ".bash_profile".text = ''
          . ~/.profile
          . ~/.bashrc
        '';
        ".bashrc".text = ''
          ${bash.bashrcExtra}
          # the rest is for interactive shells
          [[ $- == *i* ]] || return
          ${aliases}
          ${bash.initExtra}
        '';
      };
    })
    (mkIf starship.enable {
      home.packages = [pkgs.starship];
      home.sessionVariables.STARSHIP_CONFIG = "${config.xdg.configHome}/starship.toml";
      xdg.configFile."starship.toml" = mkIf (starship.settings != {}) {source = (pkgs.formats.toml {}).generate "starship.toml" starship.settings;};
      programs.bash.initExtra = lib.mkAfter "eval \"$(${lib.getExe pkgs.starship} init bash)\"";
    })
  ];
}

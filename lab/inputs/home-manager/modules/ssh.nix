# The SSH client: a block per entry of `settings`, with OpenSSH's keywords, and the defaults for all at the end.
{
  config,
  lib,
  ...
}: let
  inherit (import ./options.nix lib) flag lines set strings switch;
  cfg = config.programs.ssh;
  show = value:
    if lib.isBool value
    then lib.boolToYesNo value
    else toString value;
  # lists that ssh reads as one line; every entry of other lists is its own line
  joined = {
    SendEnv = " ";
    UserKnownHostsFile = " ";
    ProxyJump = ",";
    Ciphers = ",";
    KexAlgorithms = ",";
    MACs = ",";
  };
  directive = name: value:
    lib.concatMapStrings (one: "  ${name} ${one}\n") (
      if joined ? ${name}
      then [(lib.concatMapStringsSep joined.${name} show (lib.toList value))]
      else map show (lib.toList value)
    );
  block = name: settings:
    (
      if lib.hasPrefix "Host " name || lib.hasPrefix "Match " name
      then name
      else "Host ${name}"
    )
    + "\n"
    + lib.concatStrings (lib.mapAttrsToList directive settings);
  others = removeAttrs cfg.settings ["*"];
  blocks = lib.mapAttrsToList block others ++ lib.optional (cfg.settings ? "*") (block "*" cfg.settings."*");
in {
  options.programs.ssh =
    switch
    // {
      settings = set;
      includes = strings [];
      extraConfig = lines;
      enableDefaultConfig = flag true;
    };
  config = lib.mkIf cfg.enable {
    warnings = lib.optional cfg.enableDefaultConfig "`programs.ssh` default values will be removed in the future.";
    home.file.".ssh/config".text =
      lib.optionalString (cfg.includes != []) "Include ${toString cfg.includes}\n\n"
      + lib.concatStringsSep "\n" blocks
      + cfg.extraConfig;
  };
}

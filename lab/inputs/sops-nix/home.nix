# For Home Manager: the options alone.
{
  config,
  lib,
  ...
}: {
  options._module.known = ["sops-nix-home"];
  options.sops = import ./options.nix {
    inherit lib config;
    secretsDir = "${config.xdg.configHome}/sops-nix/secrets";
  };
}

# For Home Manager: the options alone.
{
  config,
  lib,
  ...
}: {
  options.sops = import ./options.nix {
    inherit lib config;
    secretsDir = "${config.xdg.configHome}/sops-nix/secrets";
  };
  config._module.known = [(lib.knownOptions "sops-nix-home")];
}

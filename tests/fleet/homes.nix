# What homes come to that take the modules of the flake at FLAKE, another flake's homes: without special arguments.
#
# `cases`: a list of { name; modules; nixos; }, where `nixos` is the configuration of the host below, or null.
{
  flake,
  cases,
}: let
  inherit (flake) inputs;
  inherit (inputs.nixpkgs) lib;
  pkgs = inputs.nixpkgs.legacyPackages.x86_64-linux;
  home = {
    modules ? [],
    nixos ? null,
    ...
  }:
    inputs.home-manager.lib.homeManagerConfiguration {
      inherit pkgs;
      extraSpecialArgs = lib.optionalAttrs (nixos != null) {osConfig = nixos;};
      modules =
        [
          flake.homeModules.default
          {
            home.username = "me";
            home.homeDirectory = "/home/me";
            home.stateVersion = "25.11";
          }
        ]
        ++ modules;
    };
  seen = made: {
    files = map (lib.removePrefix "/home/me/") (lib.attrNames made.config.home.file);
    packages = map lib.getName made.config.home.packages;
    inherit (made.config) warnings;
    failing = map (a: a.message) (lib.filter (a: !a.assertion) made.config.assertions);
  };
  bare = seen (home {});
  over = case: let
    all = seen (home case);
  in
    all
    // {
      files = lib.subtractLists bare.files all.files;
      packages = lib.subtractLists bare.packages all.packages;
    };

  # Every option below `homelab`, as it is documented.
  options = path: set:
    lib.concatLists (lib.mapAttrsToList (name: value: let
      here = path ++ [name];
    in
      if lib.isOption value
      then
        lib.optional (!(value.internal or false)) {
          name = lib.showOption here;
          type = value.type.description or "";
          description = value.description or "";
          default =
            if value ? defaultText
            then "documented"
            else if !(value ? default)
            then "none"
            else value.default;
        }
      else options here value)
    set);
in {
  inherit bare;
  cases = lib.listToAttrs (map (case: lib.nameValuePair case.name (over case)) cases);
  options = options ["homelab"] (home {}).options.homelab;
  reference = let
    of = config: {
      inherit (config) warnings;
      failing = map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
      display = config.homelab.display.enable;
    };
  in
    lib.mapAttrs (_: host: of (lib.head (lib.attrValues host.config.home-manager.users))) flake.nixosConfigurations
    // lib.mapAttrs (_: made: of made.config) flake.homeConfigurations;
}

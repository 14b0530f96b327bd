{
  description = "A stand-in for flake-parts: modules that make a flake's outputs";

  outputs = _: {
    lib.mkFlake = {
      inputs,
      specialArgs ? {},
      ...
    }: module: let
      inherit (inputs.nixpkgs) lib;
      inherit (lib) mkOption types;
      done = lib.evalModules {
        specialArgs = specialArgs // {inherit inputs; inherit (inputs) self;};
        modules = [
          module
          {
            options = {
              systems = mkOption {type = types.listOf types.str;};
              perSystem = mkOption {
                type = types.raw;
                default = _: {};
              };
              flake = mkOption {
                default = {};
                type = types.submodule {
                  freeformType = types.lazyAttrsOf types.raw;
                  options = lib.genAttrs ["nixosConfigurations" "homeConfigurations" "nixosModules"] (_:
                    mkOption {
                      type = types.lazyAttrsOf types.raw;
                      default = {};
                    });
                };
              };
            };
          }
        ];
      };
    in
      done.config.flake;
  };
}

{
  description = "A stand-in for NixOS-WSL: its options, and no boot loader";

  inputs.nixpkgs.url = "nixpkgs";

  outputs = {self, ...}: {
    nixosModules.default = {
      config,
      lib,
      ...
    }: {
      options.wsl = {
        enable = lib.mkEnableOption "support for running NixOS as a WSL distribution";
        defaultUser = lib.mkOption {
          type = lib.types.str;
          default = "nixos";
        };
        useWindowsDriver = lib.mkOption {
          type = lib.types.bool;
          default = false;
        };
        startMenuLaunchers = lib.mkOption {
          type = lib.types.bool;
          default = false;
        };
        interop = lib.mkOption {
          type = lib.types.attrsOf lib.types.anything;
          default = {};
        };
        wslConf = lib.mkOption {
          type = lib.types.attrsOf lib.types.anything;
          default = {};
        };
      };
      _known = [(lib.knownOptions "nixos-wsl")];
      config = lib.mkMerge [
        (lib.mkIf config.wsl.enable {
          boot.isContainer = true;
          fileSystems."/" = {
            device = lib.mkDefault "none";
            fsType = lib.mkDefault "tmpfs";
          };
        })
      ];
    };
    nixosModules.wsl = self.nixosModules.default;
  };
}

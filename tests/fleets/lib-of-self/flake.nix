{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {
    self,
    nixpkgs,
    ...
  }: {
    lib = nixpkgs.lib.extend (final: _: {
      mkMachine = name:
        final.nixosSystem {
          specialArgs = {inherit self;};
          modules = [self.nixosModules.default {networking.hostName = name;}];
        };
    });
    nixosModules.default = ./hardware-configuration.nix;
    overlays.default = _: _: {};
    nixosConfigurations.web = self.lib.mkMachine "web";
  };
}

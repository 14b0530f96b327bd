{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {nixpkgs, ...}: let
    host = module: nixpkgs.lib.nixosSystem {modules = [./hardware-configuration.nix module];};
  in {
    nixosConfigurations = {
      web = host {networking.hostName = "web";};
      thrown = throw "not written yet";
      mistyped = host {services.openssh.enabel = true;};
      asserted = host {
        assertions = [
          {
            assertion = false;
            message = "a disk is missing";
          }
        ];
      };
      missing = host ./missing.nix;
    };
  };
}

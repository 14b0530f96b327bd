{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {nixpkgs, ...}: {
    nixosConfigurations = nixpkgs.lib.genAttrs ["db.example.org" "DESKTOP-4F2" "nas_1"] (name:
      nixpkgs.lib.nixosSystem {
        modules = [
          ./hardware-configuration.nix
          {networking.hostName = builtins.head (nixpkgs.lib.splitString "." (builtins.replaceStrings ["_"] ["-"] name));}
        ];
      });
  };
}

{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = inputs: {
    nixosConfigurations = import ./hosts.nix {
      inherit inputs;
      inherit (inputs.nixpkgs) lib;
    };
  };
}

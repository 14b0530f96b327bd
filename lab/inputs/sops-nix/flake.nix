{
  description = "A stand-in for sops-nix: its options, and what it would decrypt";

  inputs.nixpkgs.url = "nixpkgs";

  outputs = {self, ...}: {
    nixosModules.sops = ./module.nix;
    nixosModules.default = self.nixosModules.sops;
    homeManagerModules.sops = ./home.nix;
    homeModules.sops = ./home.nix;
  };
}

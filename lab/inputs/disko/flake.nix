{
  description = "A stand-in for disko: GPT disks with vfat and ext file systems and swap";

  inputs.nixpkgs.url = "nixpkgs";

  outputs = {self, ...}: {
    nixosModules.disko = ./module.nix;
    nixosModules.default = self.nixosModules.disko;
  };
}

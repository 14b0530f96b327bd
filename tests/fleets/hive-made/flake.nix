{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    colmena.url = "github:zhaofengli/colmena";
  };

  outputs = {
    self,
    nixpkgs,
    colmena,
    ...
  }: {
    colmenaHive = colmena.lib.makeHive self.colmena;
    colmena = {
      meta.nixpkgs = import nixpkgs {system = "x86_64-linux";};
      web = {
        imports = [./hardware-configuration.nix];
        networking.hostName = "web";
        deployment.targetHost = "root@web.example.org";
      };
    };
  };
}

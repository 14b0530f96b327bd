{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    clan-core = {
      url = "https://git.clan.lol/clan/clan-core/archive/main.tar.gz";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs = {
    self,
    clan-core,
    ...
  }: let
    clan = clan-core.lib.clan {
      inherit self;
      meta.name = "home";
      inventory.machines.web = {
        deploy.targetHost = "root@web.example.org";
        tags = ["front"];
      };
    };
  in {
    inherit (clan.config) nixosConfigurations nixosModules clanInternals;
    clan = clan.config;
  };
}

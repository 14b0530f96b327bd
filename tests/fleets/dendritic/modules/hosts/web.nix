{
  config,
  inputs,
  ...
}: {
  systems = ["x86_64-linux"];
  flake.nixosConfigurations.web = inputs.nixpkgs.lib.nixosSystem {
    modules = [
      config.flake.nixosModules.ssh
      ../../machines/web/hardware-configuration.nix
      {networking.hostName = "web";}
    ];
  };
}

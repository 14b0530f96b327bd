{
  nixpkgs,
  home-manager,
  ...
} @ inputs: {
  hostname,
  user,
  system ? "x86_64-linux",
  extraModules ? [],
}:
nixpkgs.lib.nixosSystem {
  inherit system;
  specialArgs = {inherit inputs hostname user;};
  modules =
    [
      ../hosts/common.nix
      home-manager.nixosModules.home-manager
      {
        home-manager.useGlobalPkgs = true;
        home-manager.users.${user} = import ../hosts/home.nix;
      }
    ]
    ++ extraModules;
}

{
  description = "A fleet of NixOS and Home Manager machines";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    home-manager = {
      url = "github:nix-community/home-manager";
      inputs.nixpkgs.follows = "nixpkgs";
    };
    sops-nix = {
      url = "github:Mic92/sops-nix";
      inputs.nixpkgs.follows = "nixpkgs";
    };
    disko = {
      url = "github:nix-community/disko";
      inputs.nixpkgs.follows = "nixpkgs";
    };
    # Hardware profiles, mainly for laptops.
    nixos-hardware = {
      url = "github:NixOS/nixos-hardware/master";
      inputs.nixpkgs.follows = "nixpkgs";
    };
    # The installer that new machines boot into.
    nixos-images = {
      url = "github:nix-community/nixos-images";
      inputs.nixos-unstable.follows = "nixpkgs";
      inputs.nixos-stable.follows = "nixpkgs";
    };
    nixos-wsl = {
      url = "github:nix-community/NixOS-WSL/main";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs = {
    self,
    nixpkgs,
    ...
  } @ inputs: let
    inherit (nixpkgs) lib;
    system = "x86_64-linux";
    pkgs = nixpkgs.legacyPackages.${system};
    # Names that begin with _ are the owner's own attributes, not hosts.
    allHosts = lib.filterAttrs (name: _: !lib.hasPrefix "_" name) (import ./hosts.nix);
    fleetLib = import ./nix/lib.nix {inherit inputs self system allHosts;};
    isNixos = _: host: host ? configurationFile;
    # A host with a configurationFile is a whole NixOS machine, one without is only a user's home.
    nixosConfigurations =
      lib.mapAttrs fleetLib.mkNixosSystem (lib.filterAttrs isNixos allHosts);
    homeConfigurations =
      lib.mapAttrs fleetLib.mkHomeConfiguration (lib.filterAttrs (id: host: !isNixos id host) allHosts);
    commands = import ./nix/commands.nix {inherit pkgs;};
  in {
    inherit nixosConfigurations homeConfigurations;

    # For other flakes: the modules without our hosts; all are disabled by default. `base` is the profile of our own
    # hosts. A flake that uses secrets must import sops-nix.
    nixosModules = {
      default = ./modules/nixos;
      base = ./modules/nixos/profiles/base.nix;
    };
    homeModules.default = ./modules/home-manager;

    packages.${system} = commands.packages // {kexec-installer = import ./nix/installer.nix {inherit inputs pkgs;};};
    apps.${system} = commands.apps;
    formatter.${system} = commands.packages.fmt-nix;
    checks.${system} = import ./nix/checks.nix {inherit lib nixosConfigurations homeConfigurations;};
    devShells.${system}.default = pkgs.mkShellNoCC {
      packages =
        [pkgs.alejandra pkgs.deadnix pkgs.statix pkgs.sops pkgs.age pkgs.ssh-to-age]
        ++ lib.attrValues commands.packages;
    };
  };
}

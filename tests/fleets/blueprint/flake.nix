{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    home-manager.url = "github:nix-community/home-manager";
    blueprint.url = "github:numtide/blueprint";
  };

  outputs = {self, ...} @ inputs: inputs.blueprint {inherit inputs;};
}

{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    unstable.url = "github:NixOS/nixpkgs/nixos-unstable";
    flake-utils-plus.url = "github:gytis-ivaskevicius/flake-utils-plus";
  };

  outputs = inputs @ {
    self,
    flake-utils-plus,
    ...
  }:
    flake-utils-plus.lib.mkFlake {
      inherit self inputs;
      channels.nixpkgs.config.allowUnfree = true;
      hostDefaults.modules = [./hardware-configuration.nix];
      hosts = {
        web.modules = [];
        desk.channelName = "unstable";
      };
    };
}

# A home's configuration: its modules on a free-form tree, like the stand-in for NixOS.
{
  lib,
  pkgs,
  modules,
  extraSpecialArgs,
}:
(lib.extend (_: super: {hm = import ./hm.nix super;})).evalModules {
  class = "homeManager";
  modules = [./home.nix {_module.args.pkgs = lib.mkDefault pkgs;}] ++ modules;
  specialArgs =
    {
      lib = lib.extend (_: super: {hm = import ./hm.nix super;});
      modulesPath = toString ./.;
    }
    // extraSpecialArgs;
}

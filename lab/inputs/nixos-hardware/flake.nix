{
  description = "A stand-in for nixos-hardware: the names of its modules, without content";

  inputs.nixpkgs.url = "nixpkgs";

  outputs = _: {
    nixosModules =
      builtins.mapAttrs (_: kernelParams: {boot = {inherit kernelParams;};})
      {
        framework-13-7040-amd = ["amdgpu.dcdebugmask=0x10"];
        common-cpu-amd = [];
        common-gpu-amd = [];
        common-pc = [];
        common-pc-ssd = [];
        common-pc-laptop = [];
      };
  };
}

{
  description = "A stand-in for flake-utils-plus: hosts with defaults, each of a channel";

  outputs = _: {
    lib.mkFlake = {
      self,
      inputs,
      hosts ? {},
      hostDefaults ? {},
      ...
    }: {
      nixosConfigurations = builtins.mapAttrs (name: host:
        inputs.${host.channelName or "nixpkgs"}.lib.nixosSystem {
          system = host.system or hostDefaults.system or "x86_64-linux";
          specialArgs = {inherit self inputs;} // hostDefaults.extraArgs or {} // host.extraArgs or {};
          modules = hostDefaults.modules or [] ++ host.modules or [] ++ [{networking.hostName = name;}];
        })
      hosts;
    };
  };
}

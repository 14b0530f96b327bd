# A raw hive of colmena, with everything that decides what a node is made of.
nixpkgs: let
  marked = import nixpkgs {
    system = "x86_64-linux";
    overlays = [(_: _: {marker = "of meta";})];
  };
  other = import nixpkgs {
    system = "x86_64-linux";
    config.allowUnfree = true;
  };
in {
  meta = {
    nixpkgs = marked;
    nodeNixpkgs.second = other;
    specialArgs.word = "all";
    nodeSpecialArgs.second.word = "the second";
    machinesFile = "/etc/nix/machines";
  };
  defaults = {
    pkgs,
    word,
    name,
    ...
  }: {
    boot.loader.grub.device = "/dev/sda";
    fileSystems."/" = {
      device = "/dev/sda1";
      fsType = "ext4";
    };
    system.stateVersion = "26.05";
    environment.etc.word.text = "${word} ${name} ${pkgs.marker or "of itself"}";
    deployment.tags = ["all"];
  };
  first = {
    name,
    nodes,
    ...
  }: {
    networking.hostName = name;
    environment.etc.others.text = toString (builtins.attrNames nodes) + nodes.second.config.networking.hostName;
    deployment = {
      targetHost = "10.0.0.1";
      targetPort = 2222;
      buildOnTarget = true;
    };
  };
  second = {
    imports = [({lib, ...}: {networking.hostName = lib.mkDefault "2nd";})];
    nixpkgs.config.allowBroken = true;
    nixpkgs.overlays = [(_: _: {marker = "of the node";})];
  };
  third = {nodes, ...}: {
    networking.hosts."10.0.0.1" = [nodes.first.config.deployment.targetHost];
    deployment.targetHost = null;
  };
}

{imports = [./hardware-configuration.nix];}

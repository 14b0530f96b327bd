{imports = [./hardware.nix];}

# `import nixpkgs { system = …; overlays = […]; config = {…}; }`
args @ {system ? builtins.currentSystem, ...}:
import ./pkgs ({
    lib = import ./lib;
    inherit system;
  }
  // args)

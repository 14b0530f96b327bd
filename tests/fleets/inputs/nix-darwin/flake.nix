{
  description = "A stand-in for nix-darwin: nobody here can evaluate a Mac";

  outputs = _: {
    lib.darwinSystem = _: throw "a Mac's configuration was evaluated";
  };
}

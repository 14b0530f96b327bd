# The functions of nixpkgs' `lib` that configurations use, with the real names and semantics.
# `extend` works like the real one, because flakes add their own functions that way.
let
  fix = f: let x = f x; in x;
  makeExtensible = f:
    fix (self:
      (f self)
      // {
        extend = overlay: makeExtensible (self: let super = f self; in super // overlay self super);
      });
  parts = lib: {
    trivial = import ./trivial.nix lib;
    lists = import ./lists.nix lib;
    attrsets = import ./attrsets.nix lib;
    strings = import ./strings.nix lib;
    generators = import ./generators.nix lib;
    options = import ./options.nix lib;
    modules = import ./modules lib;
    types = import ./types.nix lib;
    meta = import ./meta.nix lib;
  };
in
  makeExtensible (lib: let
    p = parts lib;
  in
    p
    // p.trivial
    // p.lists
    // p.attrsets
    // p.strings
    // p.options
    // p.modules
    // p.meta
    // {
      inherit makeExtensible;
      inherit (p.lists) replicate;
      inherit (p.types) isOptionType mergeEqualOption mergeOneOption mkOptionType;
      version = "${p.trivial.release}.lab";
      maintainers = {};
      teams = {};
      systems.flakeExposed = ["x86_64-linux" "aarch64-linux"];
      platforms = rec {
        linux = ["x86_64-linux" "aarch64-linux"];
        unix = linux;
        all = linux;
      };
      fakeHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
      fakeSha256 = lib.strings.replicate 64 "0";
      debug = {inherit (lib) traceVal;};
      cli = {inherit (lib.generators) toGNUCommandLineShell;};
    })

# pkgs.nixherd, the command; python3Packages.nixherd, for projects of one's own that compose its operations.
final: prev: {
  nixherd = final.python3Packages.callPackage ./package.nix {
    buildPython = final.python3Packages.buildPythonApplication;
  };

  pythonPackagesExtensions =
    prev.pythonPackagesExtensions
    ++ [
      (python: before: {
        nixherd = python.callPackage ./package.nix {buildPython = python.buildPythonPackage;};

        pyinfra =
          if final.lib.versionAtLeast before.pyinfra.version "3.10"
          then before.pyinfra
          else
            before.pyinfra.overridePythonAttrs rec {
              version = "3.10.0";
              src = python.fetchPypi {
                pname = "pyinfra";
                inherit version;
                hash = "sha256-gC0iBG64STf/0qrbfdGSo8wrgwsCb5h4YXNJYUB2gQ8=";
              };
              env.UV_DYNAMIC_VERSIONING_BYPASS = version;
              # Its tests are in its repository alone.
              doCheck = false;
            };
      })
    ];
}

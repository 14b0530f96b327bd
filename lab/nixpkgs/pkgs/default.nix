# Packages. Text and tree builders are real; programs are stand-ins that run Debian's below /usr.
{
  lib,
  system,
  overlays ? [],
  config ? {},
  ...
}: let
  inherit (lib) concatMapStrings escapeShellArg;

  # The directories with a shell's tools for builders: Debian's, and NixOS' for its users.
  buildPath = "/usr/bin:/bin:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin";
  build = name: env: script:
    derivation ({
        name = lib.sanitizeDerivationName name;
        inherit system;
        builder = "/bin/sh";
        PATH = buildPath;
        args = ["-euc" script];
        preferLocalBuild = true;
        allowSubstitutes = false;
      }
      // env);

  # Packages whose programs Debian has under the same names: all of them are one path with /usr/bin in it.
  toolboxes = [
    "bash"
    "bashInteractive"
    "coreutils"
    "coreutils-full"
    "diffutils"
    "dosfstools"
    "e2fsprogs"
    "findutils"
    "gawk"
    "getent"
    "git"
    "glibc"
    "gnugrep"
    "gnused"
    "gnutar"
    "gptfdisk"
    "gzip"
    "hostname"
    "inetutils"
    "iproute2"
    "iputils"
    "kmod"
    "mount"
    "nix"
    "openssh"
    "parted"
    "procps"
    "shadow"
    "su"
    "sudo"
    "systemd"
    "systemdMinimal"
    "udev"
    "umount"
    "util-linux"
    "util-linuxMinimal"
    "which"
    "xz"
  ];
  debian = build "debian-usr" {} ''mkdir "$out"; ln -s /usr/bin "$out/bin"; ln -s /usr/sbin "$out/sbin"'';
  # Programs of an operator: Debian does not have them, and the lab's own are on PATH.
  onPath = ["age" "alejandra" "deadnix" "sops" "ssh-to-age" "statix"];
  otherNames = {
    ripgrep = "rg";
    neovim = "nvim";
    home-manager = "home-manager";
    yq-go = "yq";
    python3 = "python3";
    gnumake = "make";
    nodejs = "node";
  };

  # A script that runs the program of this name on PATH, other than itself and similar scripts.
  nextOnPath = program: ''
    IFS=:
    for place in $PATH; do
      [ -x "$place/${program}" ] || continue
      case $(/usr/bin/readlink -f "$place/${program}") in
        /nix/store/*-${program}-0.lab/*) ;;
        *) exec "$place/${program}" "$@" ;;
      esac
    done
    echo "${program}: the lab does not provide it, and it is not on PATH" >&2
    exit 127'';

  packages = final: let
    stub = name: let
      program = otherNames.${name} or name;
      path =
        if lib.elem name toolboxes
        then debian
        else
          build "${name}-0.lab" {} ''
            mkdir -p "$out/bin"
            printf '%s\n' '#!/usr/bin/sh' ${escapeShellArg (
              if lib.elem name onPath
              then nextOnPath program
              else ''exec /usr/bin/${program} "$@"''
            )} >"$out/bin/${program}"
            chmod +x "$out/bin/${program}"
          '';
      # A package set (`linuxPackages_latest.perf`) is written like a package: each package carries all others.
      self =
        removeAttrs final ["_type"]
        // path
        // {
          pname = name;
          version = "0.lab";
          meta = {
            mainProgram = program;
            description = "stand-in for ${name}";
            homepage = "";
          };
          passthru = {};
          outputs = ["out"];
          override = _: self;
          overrideAttrs = _: self;
          overrideScope = _: self;
          withPackages = _: self;
          shellPath = "/bin/${program}";
        }
        // lib.optionalAttrs (lib.hasPrefix "linuxPackages" name) {kernel = kernel name;};
    in
      self;

    # `linuxPackages_latest` and `linuxPackages` differ, so that a kernel change is visible.
    kernelVersion = name:
      {
        linuxPackages = "6.12.63";
        linuxPackages_zen = "6.17.9";
      }
      .${name}
      or "6.18.1";
    kernel = name: let
      version = kernelVersion name;
      image = build "linux-${version}" {} ''mkdir -p "$out/lib/modules/${version}"; echo 'stand-in for Linux ${version}' >"$out/bzImage"'';
    in
      image
      // {
        inherit version;
        modDirVersion = version;
        pname = "linux";
      };

    # A text of any length for the builder: by environment up to the kernel's limit, above that by file.
    writeTextFile = {
      name,
      text,
      executable ? false,
      destination ? "",
      checkPhase ? "",
      meta ? {},
      derivationArgs ? {},
      ...
    }: let
      long = lib.stringLength text > 100000;
    in
      build name ({inherit text;} // lib.optionalAttrs long {passAsFile = ["text"];}) ''
        target="$out${destination}"
        ${lib.optionalString (destination != "") ''mkdir -p "''${target%/*}"''}
        ${
          if long
          then ''cat "$textPath" >"$target"''
          else ''printf %s "$text" >"$target"''
        }
        ${lib.optionalString executable ''chmod +x "$target"''}
      ''
      // {inherit meta;};
    shebang = "#!/usr/bin/env bash\n";
    script = name: bin: text:
      writeTextFile {
        inherit name text;
        executable = true;
        destination = lib.optionalString bin "/bin/${name}";
        meta.mainProgram = name;
      };
    formats = import ./formats.nix {
      inherit lib;
      inherit (real) writeText;
    };

    real = {
      _type = "pkgs";
      inherit lib system config overlays formats writeTextFile;
      pkgs = final;
      path = ../.;
      stdenv = rec {
        inherit system;
        hostPlatform = {
          inherit system;
          isLinux = true;
          isDarwin = false;
          isx86_64 = system == "x86_64-linux";
          isAarch64 = system == "aarch64-linux";
          isEfi = true;
          canExecute = _: true;
        };
        buildPlatform = hostPlatform;
        targetPlatform = hostPlatform;
        isLinux = true;
        isDarwin = false;
        mkDerivation = args: let
          attrs =
            if lib.isFunction args
            then args attrs
            else args;
          name = attrs.name or "${attrs.pname}-${attrs.version or "0"}";
        in
          stub name // {inherit name;} // (attrs.passthru or {}) // {meta = attrs.meta or {};};
      };
      stdenvNoCC = real.stdenv;
      inherit (real.stdenv) hostPlatform;
      extend = overlay:
        import ./. {
          inherit lib system config;
          overlays = overlays ++ [overlay];
        };
      appendOverlays = more:
        import ./. {
          inherit lib system config;
          overlays = overlays ++ more;
        };
      callPackage = lib.callPackageWith final;
      newScope = extra: lib.callPackageWith (final // extra);
      nixos = modules:
        import ../nixos/lib/eval-config.nix {
          inherit lib;
          modules = lib.toList modules ++ [{nixpkgs.pkgs = final;}];
        };

      writeText = name: text: writeTextFile {inherit name text;};
      writeTextDir = path: text:
        writeTextFile {
          name = baseNameOf path;
          inherit text;
          destination = "/${path}";
        };
      writeScript = name: text: script name false text;
      writeScriptBin = name: text: script name true text;
      writeShellScript = name: text: script name false (shebang + text);
      writeShellScriptBin = name: text: script name true (shebang + text);
      # A name with a slash is the script's path in a directory.
      writers = rec {
        makeScriptWriter = {interpreter, ...}: name: text: let
          placed = lib.hasPrefix "/" name;
        in
          writeTextFile {
            name = baseNameOf name;
            text = "#!${interpreter}\n${text}";
            executable = true;
            destination = lib.optionalString placed name;
          };
        writeBash = makeScriptWriter {interpreter = "/usr/bin/env bash";};
        writeBashBin = name: writeBash "/bin/${name}";
        writeDash = makeScriptWriter {interpreter = "/bin/sh";};
        writeDashBin = name: writeDash "/bin/${name}";
      };
      writeShellApplication = {
        name,
        text,
        runtimeInputs ? [],
        runtimeEnv ? {},
        bashOptions ? ["errexit" "nounset" "pipefail"],
        meta ? {},
        ...
      }: let
        made = script name true (shebang
          + concatMapStrings (option: "set -o ${option}\n") bashOptions
          + concatMapStrings (var: "export ${var}\n") (lib.mapAttrsToList lib.toShellVar runtimeEnv)
          + lib.optionalString (runtimeInputs != []) "export PATH=\"${lib.makeBinPath runtimeInputs}:$PATH\"\n"
          + text
          + "\n");
      in
        made // {meta = made.meta // meta;};
      runCommand = name: env: script:
        build name (removeAttrs env ["meta" "passthru"]
          // {
            buildInputs = [];
            nativeBuildInputs = [];
          })
        script;
      runCommandLocal = real.runCommand;
      runCommandNoCC = real.runCommand;
      runCommandCC = real.runCommand;
      symlinkJoin = {
        name ? "${pname}-${version}",
        pname ? "",
        version ? "",
        paths,
        postBuild ? "",
        ...
      }:
        build name {} ''
          mkdir -p "$out"
          ${concatMapStrings (path: "cp -rsfT --no-preserve=mode ${path}/ \"$out\" 2>/dev/null || cp -rsf --no-preserve=mode ${path}/. \"$out\"\n") paths}
          ${postBuild}
        '';
      buildEnv = {
        name,
        paths,
        pathsToLink ? ["/"],
        postBuild ? "",
        ...
      }:
        real.symlinkJoin {inherit name paths postBuild;};
      linkFarm = name: entries:
        build name {} (''mkdir -p "$out"; cd "$out"; ''
          + concatMapStrings (e: ''
            mkdir -p "$(dirname ${escapeShellArg e.name})"; ln -s ${escapeShellArg "${e.path}"} ${escapeShellArg e.name}
          '') (
            if lib.isAttrs entries
            then lib.mapAttrsToList (name: path: {inherit name path;}) entries
            else entries
          ));
      concatText = name: files: build name {} ''cat ${lib.escapeShellArgs files} >"$out"'';
      concatTextFile = {
        name,
        files,
        ...
      }:
        real.concatText name files;
      replaceVars = file: vars: real.writeText (baseNameOf file) (builtins.replaceStrings (map (v: "@${v}@") (lib.attrNames vars)) (map toString (lib.attrValues vars)) (builtins.readFile file));
      emptyFile = real.writeText "empty-file" "";
      emptyDirectory = build "empty-directory" {} ''mkdir "$out"'';
      # `nix develop` takes the environment from a build with Bash.
      mkShell = attrs:
        build (attrs.name or "shell") {
          builder = "/bin/bash";
          outputs = ["out"];
          PATH = "${lib.makeBinPath (attrs.packages or [])}:${buildPath}";
          shellHook = attrs.shellHook or "";
        } ''echo 'what nix develop makes a shell of' >"$out"'';
      mkShellNoCC = real.mkShell;
      closureInfo = {rootPaths}: build "closure-info" {} ''mkdir "$out"; printf '%s\n' ${lib.escapeShellArgs rootPaths} >"$out/store-paths"'';
      fetchurl = {
        name ? baseNameOf url,
        url ? "fetched",
        ...
      }:
        stub name;
      fetchzip = real.fetchurl;
      fetchFromGitHub = {
        repo,
        name ? repo,
        ...
      }:
        stub name;
      fetchgit = real.fetchurl;
    };
    names = lib.subtractLists ["lib" "bin" "name" "pname" "version" "meta" "type" "outPath" "drvPath" "out" "override" "config" "system"] (toolboxes ++ import ./names.nix);
  in
    lib.genAttrs names stub // real;

  overlay = lib.composeManyExtensions (overlays ++ [(_: _: {})]);
in
  lib.fix (lib.extends overlay packages)

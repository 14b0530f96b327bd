# The toplevel: a generation's content, its boot and its switch.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  inherit (config.system) build;
  snippets = config.system.activationScripts;

  # The snippets, ordered so that each comes after its dependencies.
  ordered = let
    visit = trail: state: name:
      if lib.elem name trail
      then throw "system.activationScripts depend on each other in a circle: ${lib.concatStringsSep " -> " (trail ++ [name])}"
      else if lib.elem name state
      then state
      else lib.foldl' (visit (trail ++ [name])) state (snippets.${name} or (throw "system.activationScripts.${name} does not exist, but ${lib.last trail} depends on it")).deps ++ [name];
  in
    lib.foldl' (visit []) [] (lib.attrNames snippets);
  activate = {dry}: ''
    #!/usr/bin/bash
    # Make the running machine match this generation. Called by init and by switch-to-configuration.
    systemConfig=@out@
    export PATH=/usr/bin:/usr/sbin
    umask 0022
    if [[ -z ''${NIXOS_ACTIVATE:-} && ! -e /etc/NIXOS ]]; then
        echo "$0: this is not a NixOS machine; refusing to change it" >&2
        exit 1
    fi
    export NIXOS_ACTION=''${NIXOS_ACTION:-switch}
    _status=0
    trap '_status=1 _localstatus=$?' ERR
    ${lib.concatMapStrings (name:
      lib.optionalString (dry -> snippets.${name}.supportsDryActivation) ''
        #### ${name}
        _localstatus=0
        ${snippets.${name}.text}
        if ((_localstatus > 0)); then printf "Activation script snippet '%s' failed (%s)\n" ${lib.escapeShellArg name} "$_localstatus" >&2; fi
      '')
    ordered}
    ${lib.optionalString (!dry) ''
      ln -sfn "$systemConfig" /run/current-system
      # the running system is never garbage
      ln -sfn /run/current-system /nix/var/nix/gcroots/current-system
    ''}
    exit $_status
  '';
  checks = ''
    #!/usr/bin/bash
    ${lib.concatStrings (lib.mapAttrsToList (name: text: ''
        (
        ${text}
        ) || { echo "Pre-switch check '${name}' failed"; exit 1; }
      '')
      config.system.preSwitchChecks)}
  '';
  failed = lib.filter (a: !a.assertion) config.assertions;
  checked = value:
    if failed != []
    then throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (a: "- ${a.message}") failed}"
    else lib.showWarnings config.warnings value;
  version = {
    nixosVersion = config.system.nixos.version;
    nixpkgsRevision = config.system.nixos.revision;
    inherit (config.system) configurationRevision;
  };
in {
  options.system = {
    build = mkOption {
      type = types.lazyAttrsOf types.unspecified;
      default = {};
    };
    path = mkOption {
      type = types.package;
      internal = true;
    };
    activationScripts = mkOption {
      default = {};
      type = types.attrsOf (types.coercedTo types.str (text: {inherit text;}) (types.submodule {
        options = {
          text = mkOption {
            type = types.lines;
            default = "";
          };
          deps = mkOption {
            type = types.listOf types.str;
            default = [];
          };
          supportsDryActivation = mkOption {
            type = types.bool;
            default = false;
          };
        };
      }));
    };
    userActivationScripts = mkOption {
      type = types.attrsOf types.unspecified;
      default = {};
    };
    systemBuilderCommands = mkOption {
      type = types.lines;
      default = "";
      internal = true;
    };
    extraDependencies = mkOption {
      type = types.listOf types.unspecified;
      default = [];
    };
    copySystemConfiguration = mkOption {
      type = types.bool;
      default = false;
    };
    switch = {
      enable = mkOption {
        type = types.bool;
        default = true;
      };
      inhibitors = mkOption {
        type = types.attrsOf types.str;
        default = {};
      };
    };
    preSwitchChecks = mkOption {
      type = types.attrsOf types.str;
      default = {};
    };
  };

  config = {
    # as in nixpkgs since 26.05: what both systems list must be equal, otherwise a boot is required
    system.switch.inhibitors.dbus-implementation = lib.mkDefault "dbus";
    system.preSwitchChecks.switchInhibitors = ''
      if [[ $2 != boot ]]; then
          echo -n 'Checking switch inhibitors...'
          said() { grep -o '"[^"]*":"[^"]*"' "$1/switch-inhibitors" 2>/dev/null | tr -d '"' | sort; }
          changes=$(join -t : <(said /run/current-system) <(said "$1") |
              while IFS=: read -r name was becomes; do [[ $was == "$becomes" ]] || echo "$name : $was -> $becomes"; done)
          if [[ -n $changes ]]; then
              printf '\nThere are changes to critical components of the system:\n\n%s\n\n' "$changes"
              echo 'Switching into this system is not recommended.'
              echo "You probably want to run 'nixos-rebuild boot' and reboot your system instead."
              exit 1
          fi
          echo ' done'
      fi
    '';
    system.activationScripts = {
      specialfs = "mkdir -p /etc /home /root /run/nixos /run/wrappers/bin /tmp /var/lib/nixos /var/log /var/empty /nix/var/nix/gcroots /nix/var/nix/profiles; chmod 1777 /tmp; chmod 0700 /root";
      users.deps = ["specialfs"];
      debian = {
        deps = ["etc"];
        # required by Debian's programs in /etc
        text = ''
          mkdir -p /etc/alternatives /var/log/journal
          [[ -e /etc/alternatives/awk ]] || { ln -sfn /usr/bin/mawk /etc/alternatives/awk; ln -sfn /usr/bin/which.debianutils /etc/alternatives/which; ln -sfn /usr/bin/more /etc/alternatives/pager; }
          [[ -e /etc/mtab ]] || ln -sfn /proc/mounts /etc/mtab
          ln -sfn /usr/bin/sudo /run/wrappers/bin/sudo; ln -sfn /usr/bin/su /run/wrappers/bin/su; ln -sfn /usr/bin/mount /run/wrappers/bin/mount
          ln -sfn /usr/bin/umount /run/wrappers/bin/umount; ln -sfn /usr/bin/doas /run/wrappers/bin/doas
          [[ -s /etc/machine-id ]] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
        '';
      };
      hostname = {
        deps = ["etc"];
        text = lib.optionalString (config.networking.hostName != "") ''[[ -n ''${IN_NIXOS_ENTER:-} ]] || hostname ${lib.escapeShellArg config.networking.hostName}'';
      };
      var.deps = ["etc"];
    };

    system.build = {
      nixosVersionScript = ''
        #!/usr/bin/sh
        case "''${1:-}" in
          --json)
            cat <<'EOF'
        ${builtins.toJSON (lib.filterAttrs (_: v: v != null) version)}
        EOF
            ;;
          --hash|--revision|--nixpkgs-revision) echo ${lib.escapeShellArg (toString version.nixpkgsRevision)} ;;
          --configuration-revision) ${
          if version.configurationRevision == null
          then ''echo "$0: configuration revision is unknown" >&2; exit 1''
          else "echo ${lib.escapeShellArg version.configurationRevision}"
        } ;;
          *) echo ${lib.escapeShellArg "${config.system.nixos.version} (${config.system.nixos.codeName})"} ;;
        esac
      '';
      toplevel = checked (pkgs.runCommand "nixos-system-${config.system.name}-${config.system.nixos.label}" {
          activateScript = activate {dry = false;};
          dryScript = activate {dry = true;};
          checkScript = checks;
          inhibitors = builtins.toJSON config.system.switch.inhibitors;
          initScript = ''
            #!/usr/bin/sh
            # Stage 2: the boot loader's entry names this file. It activates the generation and becomes systemd.
            systemConfig=@out@
            export PATH=/usr/bin:/usr/sbin
            [ "$$" = 1 ] || { echo "$0: only the kernel starts this" >&2; exit 1; }
            mkdir -p /etc /run/log
            # as in a container, where the kernel's log is not written to
            NIXOS_ACTIVATE=1 "$systemConfig/activate" 2>&1 | tee -i /run/log/stage-2-init.log
            ln -sfn "$systemConfig" /run/booted-system
            ln -sfn /run/booted-system /nix/var/nix/gcroots/booted-system
            exec /usr/lib/systemd/systemd "$@"
          '';
          inherit (build) kernel initialRamdisk kernelModules;
          kernelParams = toString config.boot.kernelParams;
          bootLoader = build.installBootLoader;
          extraDependencies = map toString config.system.extraDependencies;
        } ''
          mkdir -p "$out/bin"; cd "$out"
          printf %s ${lib.escapeShellArg config.system.nixos.version} >nixos-version
          printf %s ${lib.escapeShellArg config.nixpkgs.system} >system
          printf %s "$kernelParams" >kernel-params
          printf %s "nixos-lab 1" >init-interface-version
          ln -s ${build.etc}/etc etc
          ln -s ${config.system.path} sw
          ln -s "$kernel" kernel; ln -s "$initialRamdisk" initrd; ln -s "$kernelModules" kernel-modules
          ln -s "$bootLoader" install-boot-loader
          # the scripts contain their own path; sh alone replaces it
          name() { printf '%s%s%s\n' "''${1%%@out@*}" "$out" "''${1#*@out@}"; }
          name "$activateScript" >activate
          name "$dryScript" >dry-activate
          name "$initScript" >init
          printf '%s\n' "$checkScript" >pre-switch-checks
          printf '%s\n' "$inhibitors" >switch-inhibitors
          cp ${../../scripts/switch-to-configuration.sh} bin/switch-to-configuration
          chmod +x activate dry-activate init pre-switch-checks bin/switch-to-configuration
          ${config.system.systemBuilderCommands}
        '');
    };
  };
}

# Users and groups: declared ones exist with the declared properties; numbers and passwords stay once assigned.
{
  config,
  lib,
  utils,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.users;
  orEmpty = x:
    if x == null
    then ""
    else toString x;

  user = types.submodule ({
    name,
    config,
    ...
  }: {
    options =
      {
        enable = mkOption {
          type = types.bool;
          default = true;
        };
        name = mkOption {
          type = types.passwdEntry types.str;
          default = name;
        };
        description = mkOption {
          type = types.passwdEntry types.str;
          default = "";
        };
        uid = mkOption {
          type = types.nullOr types.int;
          default = null;
        };
        isNormalUser = mkOption {
          type = types.bool;
          default = false;
        };
        isSystemUser = mkOption {
          type = types.bool;
          default = false;
        };
        group = mkOption {
          type = types.str;
          default = "";
        };
        extraGroups = mkOption {
          type = types.listOf types.str;
          default = [];
        };
        home = mkOption {
          type = types.passwdEntry types.path;
          default = "/var/empty";
        };
        homeMode = mkOption {
          type = types.str;
          default = "700";
        };
        createHome = mkOption {
          type = types.bool;
          default = false;
        };
        shell = mkOption {
          type = types.nullOr (types.either types.package (types.passwdEntry types.path));
          default = "/usr/sbin/nologin";
        };
        useDefaultShell = mkOption {
          type = types.bool;
          default = false;
        };
        linger = mkOption {
          type = types.nullOr types.bool;
          default = null;
        };
        packages = mkOption {
          type = types.listOf types.package;
          default = [];
        };
        subUidRanges = mkOption {
          type = types.listOf types.anything;
          default = [];
        };
        subGidRanges = mkOption {
          type = types.listOf types.anything;
          default = [];
        };
        openssh.authorizedKeys = {
          keys = mkOption {
            type = types.listOf types.singleLineStr;
            default = [];
          };
          keyFiles = mkOption {
            type = types.listOf types.path;
            default = [];
          };
        };
      }
      // lib.genAttrs ["password" "hashedPassword" "hashedPasswordFile" "initialPassword" "initialHashedPassword"] (_:
        mkOption {
          type = types.nullOr types.str;
          default = null;
        });
    config = lib.mkMerge [
      (lib.mkIf config.isNormalUser {
        group = lib.mkDefault "users";
        createHome = lib.mkDefault true;
        home = lib.mkDefault "/home/${config.name}";
        useDefaultShell = lib.mkDefault true;
      })
      (lib.mkIf config.useDefaultShell {shell = lib.mkDefault cfg.defaultUserShell;})
    ];
  });
  group = types.submodule ({name, ...}: {
    options = {
      name = mkOption {
        type = types.passwdEntry types.str;
        default = name;
      };
      gid = mkOption {
        type = types.nullOr types.int;
        default = null;
      };
      members = mkOption {
        type = types.listOf types.str;
        default = [];
      };
    };
  });

  users = lib.filter (u: u.enable) (lib.attrValues cfg.users);
  keysOf = u: u.openssh.authorizedKeys.keys ++ map lib.fileContents u.openssh.authorizedKeys.keyFiles;
  # name:uid:group:home:shell:kind:home mode:hash for a new user:hash for ever, or @ and the file with it:description
  userLine = u:
    lib.concatStringsSep ":" [
      u.name
      (orEmpty u.uid)
      u.group
      (toString u.home)
      (utils.toShellPath u.shell)
      "${
        if u.isNormalUser
        then "normal"
        else "system"
      }${lib.optionalString u.createHome "+home"}"
      u.homeMode
      (orEmpty u.initialHashedPassword)
      (
        if u.hashedPasswordFile != null
        then "@${u.hashedPasswordFile}"
        else orEmpty u.hashedPassword
      )
      u.description
    ];
  groupLine = g: "${g.name}:${orEmpty g.gid}:${lib.concatStringsSep "," (lib.unique (g.members
        ++ map (u: u.name) (lib.filter (u: lib.elem g.name u.extraGroups) users)))}";
  system = uid: group: {
    inherit uid group;
    isSystemUser = true;
  };
in {
  options.users = {
    users = mkOption {
      type = types.attrsOf user;
      default = {};
    };
    groups = mkOption {
      type = types.attrsOf group;
      default = {};
    };
    mutableUsers = mkOption {
      type = types.bool;
      default = true;
    };
    defaultUserShell = mkOption {
      type = types.either types.path types.shellPackage;
      default = "/run/current-system/sw/bin/bash";
    };
    allowNoPasswordLogin = mkOption {
      type = types.bool;
      default = false;
    };
  };

  config = {
    users.users = {
      root = {
        uid = 0;
        group = "root";
        home = lib.mkDefault "/root";
        shell = lib.mkDefault cfg.defaultUserShell;
        description = "System administrator";
      };
      nobody = system 65534 "nogroup";
      messagebus = system 4 "messagebus";
      systemd-network = system 152 "systemd-network";
      systemd-resolve = system 153 "systemd-resolve";
      systemd-timesync = system 154 "systemd-timesync";
    };
    users.groups = lib.mapAttrs (_: gid: {inherit gid;}) {
      root = 0;
      wheel = 1;
      kmem = 2;
      tty = 3;
      messagebus = 4;
      disk = 6;
      audio = 17;
      floppy = 18;
      uucp = 19;
      lp = 20;
      cdrom = 24;
      tape = 25;
      video = 26;
      dialout = 27;
      utmp = 29;
      shadow = 42;
      adm = 55;
      systemd-journal = 62;
      keys = 96;
      users = 100;
      systemd-network = 152;
      systemd-resolve = 153;
      systemd-timesync = 154;
      input = 174;
      sgx = 304;
      kvm = 302;
      render = 303;
      nixbld = 30000;
      nogroup = 65534;
    };

    assertions =
      map (u: {
        assertion = u.name == "root" || u.isNormalUser != u.isSystemUser;
        message = "Exactly one of users.users.${u.name}.isSystemUser and users.users.${u.name}.isNormalUser must be set.";
      })
      users
      ++ map (u: {
        assertion = u.group != "";
        message = "users.users.${u.name}.group is unset. This used to default to nogroup, but this is unsafe.";
      })
      users
      ++ map (u: {
        assertion = lib.all (key: builtins.match "[^ ].*" key != null) (keysOf u);
        message = "users.users.${u.name}.openssh.authorizedKeys has a key that starts with a space.";
      })
      users;

    environment.etc =
      {
        "nixos-users".text = lib.concatMapStrings (u: userLine u + "\n") users;
        "nixos-groups".text = lib.concatMapStrings (g: groupLine g + "\n") (lib.attrValues cfg.groups);
      }
      // lib.listToAttrs (map (u:
        lib.nameValuePair "ssh/authorized_keys.d/${u.name}" {
          mode = "0444";
          text = lib.concatMapStrings (key: key + "\n") (keysOf u);
        }) (lib.filter (u: keysOf u != []) users));

    system.activationScripts.users = "bash ${../../scripts/update-users.sh} ${config.system.build.etc}/etc ${lib.boolToString cfg.mutableUsers}";
    system.activationScripts.groups.deps = ["users"];
  };
}

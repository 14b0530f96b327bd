# The options of units.
lib: let
  inherit (lib) mkOption types;
  atom = types.nullOr (types.oneOf [types.bool types.int types.float types.str types.path types.package]);
  # a key that is a list anywhere is repeated, other values must agree
  value =
    types.either atom (types.listOf atom)
    // {
      merge = path: defs:
        if lib.any (def: lib.isList def.value) defs
        then lib.concatMap (def: lib.toList def.value) defs
        else types.anything.merge path defs;
    };
  setting = types.attrsOf value;
  strings = mkOption {
    type = types.listOf types.str;
    default = [];
  };
  lines = mkOption {
    type = types.lines;
    default = "";
  };

  common =
    {
      enable = mkOption {
        type = types.bool;
        default = true;
      };
      description = mkOption {
        type = types.str;
        default = "";
      };
      documentation = strings;
      unitConfig = mkOption {
        type = setting;
        default = {};
      };
      overrideStrategy = mkOption {
        type = types.enum ["asDropinIfExists" "asDropin"];
        default = "asDropinIfExists";
      };
      startLimitBurst = mkOption {
        type = types.nullOr types.int;
        default = null;
      };
      startLimitIntervalSec = mkOption {
        type = types.nullOr types.int;
        default = null;
      };
      restartTriggers = mkOption {
        type = types.listOf types.unspecified;
        default = [];
      };
      reloadTriggers = mkOption {
        type = types.listOf types.unspecified;
        default = [];
      };
    }
    // lib.genAttrs [
      "after"
      "aliases"
      "before"
      "bindsTo"
      "conflicts"
      "onFailure"
      "onSuccess"
      "partOf"
      "requiredBy"
      "requires"
      "requisite"
      "upholds"
      "upheldBy"
      "wantedBy"
      "wants"
    ] (_: strings);
  service = {
    serviceConfig = mkOption {
      type = setting;
      default = {};
    };
    environment = mkOption {
      type = types.attrsOf (types.nullOr (types.oneOf [types.str types.path types.package types.int]));
      default = {};
    };
    path = mkOption {
      type = types.listOf (types.oneOf [types.package types.str]);
      default = [];
    };
    script = lines;
    scriptArgs = mkOption {
      type = types.str;
      default = "";
    };
    preStart = lines;
    postStart = lines;
    preStop = lines;
    postStop = lines;
    reload = lines;
    restartIfChanged = mkOption {
      type = types.bool;
      default = true;
    };
    reloadIfChanged = mkOption {
      type = types.bool;
      default = false;
    };
    stopIfChanged = mkOption {
      type = types.bool;
      default = true;
    };
    notSocketActivated = mkOption {
      type = types.bool;
      default = false;
    };
    confinement = mkOption {
      type = types.attrs;
      default = {};
    };
    startAt = mkOption {
      type = types.coercedTo types.str lib.singleton (types.listOf types.str);
      default = [];
    };
  };
  section = name: {
    ${name} = mkOption {
      type = setting;
      default = {};
    };
  };
  units = options:
    mkOption {
      default = {};
      type = types.attrsOf (types.submodule {options = common // options;});
    };
in {
  inherit common section service strings units;
}

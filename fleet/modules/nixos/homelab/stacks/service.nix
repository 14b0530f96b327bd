# The options of one container.
{cfg}: {lib, ...}: let
  inherit (lib) mkOption types;
  maybe = type: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description;
    };
  flag = default: description:
    mkOption {
      type = types.bool;
      inherit default description;
    };
  list = type: description:
    mkOption {
      type = types.listOf type;
      default = [];
      inherit description;
    };
  duration = default:
    mkOption {
      type = types.strMatching "([0-9]+(ms|s|m|h))+";
      inherit default;
      description = "In compose's notation: 30s, 1m30s.";
    };

  port = types.submodule {
    options = {
      host = mkOption {
        type = types.port;
        description = "On the machine.";
      };
      container = mkOption {
        type = types.port;
        description = "In the container.";
      };
      protocol = mkOption {
        type = types.enum ["tcp" "udp"];
        default = "tcp";
        description = "tcp or udp.";
      };
      address = mkOption {
        type = types.str;
        default = cfg.address;
        defaultText = lib.literalExpression "config.homelab.docker.address";
        description = "The address of the machine that it listens on.";
      };
    };
  };

  data = types.coercedTo types.str (target: {inherit target;}) (types.submodule {
    options = {
      target = mkOption {
        type = types.str;
        description = "Its path in the container.";
      };
      owner = mkOption {
        type = types.either types.str types.ints.unsigned;
        default = "root";
        description = "Its initial owner; later the container may change it.";
      };
      group = mkOption {
        type = types.either types.str types.ints.unsigned;
        default = "root";
        description = "Its initial group.";
      };
      mode = mkOption {
        type = types.strMatching "[0-7]{3,4}";
        default = "0750";
        description = "Its initial mode.";
      };
      backup = flag true "Whether a backup has to hold it; not so for caches.";
    };
  });

  mount = types.submodule {
    options = {
      source = mkOption {
        type = types.str;
        description = "An absolute path of the machine, which must exist.";
      };
      target = mkOption {
        type = types.str;
        description = "Its path in the container.";
      };
      readOnly = flag false "Whether the container may only read it.";
    };
  };

  healthCheck = types.submodule {
    options = {
      command = mkOption {
        type = types.either types.str (types.listOf types.str);
        description = "A command in the container that must exit with 0; a string runs in its shell, a list without one.";
      };
      interval = duration "30s";
      timeout = duration "10s";
      startPeriod = duration "1m";
      retries = mkOption {
        type = types.ints.positive;
        default = 5;
        description = "How many failures in a row make it unhealthy.";
      };
    };
  };
in {
  options = {
    image = mkOption {
      type = types.str;
      example = "postgres:17";
      description = "The image with a fixed version tag, or with a digest (@sha256:…).";
    };
    command = list types.str "What runs instead of the image's own command.";
    environment = mkOption {
      type = types.attrsOf (types.oneOf [types.str types.int types.bool]);
      default = {};
      description = "Environment variables, passed literally (a `$` is a `$`). They are in the Nix store: no secrets.";
    };
    secrets = list types.str "Which `secrets` of the stack it gets as variables.";
    ports = list port "What is published on the machine.";
    data = mkOption {
      type = types.attrsOf data;
      default = {};
      example = {pgdata = "/var/lib/postgresql/data";};
      description = "Persistent data: directories below homelab.docker.dataDirectory by name, and their path in the container.";
    };
    mounts = list mount "Other paths of the machine that it sees.";
    networks = list types.str "Networks of the stack that it is in; none said: `default`.";
    hostNetwork = flag false "Whether it has the machine's network instead. Its `ports` are then those that it opens by itself.";
    dependsOn = list types.str "Containers of the stack that have to be healthy first.";
    healthCheck = mkOption {
      type = types.either (types.enum ["image" "none"]) healthCheck;
      default = "image";
      description = "How its health is determined: by the image's own check, by running at all, or by this command.";
    };
    user = maybe types.str "UID or UID:GID that it runs as, unless the image says.";
    devices = list types.str "Devices of the machine, such as /dev/dri.";
    capabilities = list types.str "Capabilities beyond docker's own, such as NET_ADMIN.";
    noNewPrivileges = flag true "Whether its processes can gain no privileges.";
    memory = maybe (types.strMatching "[0-9]+[bkmg]") "How much memory it may have at most, such as 512m.";
    restart = mkOption {
      type = types.enum ["unless-stopped" "on-failure" "always" "no"];
      default = "unless-stopped";
      description = "Docker's restart policy.";
    };
    update = mkOption {
      type = types.enum ["automatic" "notify" "off"];
      default = "notify";
      description = "Labels for image watchers (watchtower, diun): update it, report newer images, or ignore it.";
    };
    stopDuringBackup = flag false "Whether a backup has to stop it first (label of docker-volume-backup): for databases.";
    labels = mkOption {
      type = types.attrsOf types.str;
      default = {};
      description = "Further labels.";
    };
    extra = mkOption {
      type = types.attrsOf types.anything;
      default = {};
      example = {shm_size = "128m";};
      description = "Further compose attributes, which override the options.";
    };
  };
}

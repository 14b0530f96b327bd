# Photos. https://immich.app/docs/install/docker-compose
import ../stack.nix {
  name = "immich";
  description = "Photos";

  services.server = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/immich/docker-compose.yml
    image = "ghcr.io/immich-app/immich-server:v3.1.0";
    environment = {
      DB_HOSTNAME = "database";
      DB_USERNAME = "immich";
      DB_DATABASE_NAME = "immich";
      REDIS_HOSTNAME = "cache";
      IMMICH_MACHINE_LEARNING_URL = "http://machine-learning:3003";
    };
    # DB_PASSWORD=…, the same as POSTGRES_PASSWORD of `database`
    secrets = ["immich"];
    ports = [
      {
        host = 2283;
        container = 2283;
      }
    ];
    data.upload = "/data";
    networks = ["default" "database"];
    dependsOn = ["database" "cache"];
  };
  services.machine-learning = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/immich/docker-compose.yml
    image = "ghcr.io/immich-app/immich-machine-learning:v3.1.0";
    data.models = {
      target = "/cache";
      backup = false;
    };
  };
  services.cache = {
    # https://github.com/getumbrel/umbrel-apps/blob/6372367174937ebc78556be6bc397979a29b7748/immich/docker-compose.yml
    image = "valkey/valkey:8-bookworm";
    networks = ["database"];
    healthCheck.command = "valkey-cli ping | grep -q PONG";
  };

  services.database =
    import ../postgres.nix {
      name = "immich";
      # https://github.com/getumbrel/umbrel-apps/blob/6372367174937ebc78556be6bc397979a29b7748/immich/docker-compose.yml
      image = "ghcr.io/immich-app/postgres:14-vectorchord0.4.3-pgvectors0.2.0";
    }
    // {extra.shm_size = "128m";};
  networks.database.internal = true;

  secrets = {
    immich = {};
    database = {};
  };
}

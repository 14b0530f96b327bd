# Recipes. https://docs.mealie.io/documentation/getting-started/installation/postgres/
import ../stack.nix {
  name = "mealie";
  description = "Recipes";

  services.mealie = {
    # https://github.com/getumbrel/umbrel-apps/blob/6372367174937ebc78556be6bc397979a29b7748/mealie/docker-compose.yml
    image = "ghcr.io/mealie-recipes/mealie:v3.23.1";
    environment = {
      ALLOW_SIGNUP = false;
      PUID = 1000;
      PGID = 1000;
      DB_ENGINE = "postgres";
      POSTGRES_SERVER = "database";
      POSTGRES_DB = "mealie";
      POSTGRES_USER = "mealie";
    };
    # POSTGRES_PASSWORD=…, as the database has it
    secrets = ["database"];
    ports = [
      {
        host = 9925;
        container = 9000;
      }
    ];
    data.data = {
      target = "/app/data";
      owner = 1000;
      group = 1000;
    };
    networks = ["default" "database"];
    dependsOn = ["database"];
    memory = "1000m";
  };

  # The roles and the password are made when the data is; later they are changed by psql.
  services.database = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/paperless-ngx/docker-compose.yml
    image = "postgres:17";
    environment = {
      POSTGRES_DB = "mealie";
      POSTGRES_USER = "mealie";
    };
    # POSTGRES_PASSWORD=…
    secrets = ["database"];
    data.database = "/var/lib/postgresql/data";
    networks = ["database"];
    healthCheck.command = ["pg_isready" "-U" "mealie" "-d" "mealie"];
    stopDuringBackup = true;
  };
  networks.database.internal = true;

  secrets.database = {};
}

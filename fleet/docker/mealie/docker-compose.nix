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

  services.database = import ../postgres.nix {name = "mealie";};
  networks.database.internal = true;

  secrets.database = {};
}

# Git. https://forgejo.org/docs/latest/admin/installation/docker/
import ../stack.nix {
  name = "forgejo";
  description = "Git";

  services.forgejo = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/forgejo/docker-compose.yml
    image = "codeberg.org/forgejo/forgejo:16.0.3";
    environment = {
      USER_UID = 1000;
      USER_GID = 1000;
      FORGEJO__database__DB_TYPE = "postgres";
      FORGEJO__database__HOST = "database:5432";
      FORGEJO__database__NAME = "forgejo";
      FORGEJO__database__USER = "forgejo";
      FORGEJO__server__SSH_PORT = 2222;
    };
    # FORGEJO__database__PASSWD=…
    secrets = ["forgejo"];
    ports = [
      {
        host = 3000;
        container = 3000;
      }
      {
        host = 2222;
        container = 22;
      }
    ];
    data.data = {
      target = "/data";
      owner = 1000;
      group = 1000;
    };
    networks = ["default" "database"];
    dependsOn = ["database"];
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:3000/api/healthz"];
  };

  services.database = import ../postgres.nix {name = "forgejo";};
  networks.database.internal = true;

  secrets = {
    forgejo = {};
    database = {};
  };
}

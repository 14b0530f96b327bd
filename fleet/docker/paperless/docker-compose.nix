# Documents. https://docs.paperless-ngx.com/setup/#docker
import ../stack.nix {
  name = "paperless";
  description = "Documents";

  services.paperless = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/paperless-ngx/docker-compose.yml
    image = "ghcr.io/paperless-ngx/paperless-ngx:3.0.5";
    environment = {
      PAPERLESS_REDIS = "redis://broker:6379";
      PAPERLESS_DBHOST = "database";
      PAPERLESS_DBNAME = "paperless";
      PAPERLESS_DBUSER = "paperless";
      PAPERLESS_TIKA_ENABLED = 1;
      PAPERLESS_TIKA_ENDPOINT = "http://tika:9998";
      PAPERLESS_TIKA_GOTENBERG_ENDPOINT = "http://gotenberg:3000";
      USERMAP_UID = 1000;
      USERMAP_GID = 1000;
    };
    # PAPERLESS_DBPASS=…, PAPERLESS_SECRET_KEY=…, PAPERLESS_ADMIN_USER=…, PAPERLESS_ADMIN_PASSWORD=…
    secrets = ["paperless"];
    ports = [
      {
        host = 8000;
        container = 8000;
      }
    ];
    data.data = "/usr/src/paperless/data";
    data.media = "/usr/src/paperless/media";
    data.export = "/usr/src/paperless/export";
    data.consume = {
      target = "/usr/src/paperless/consume";
      backup = false;
    };
    networks = ["default" "database"];
    dependsOn = ["database" "broker" "gotenberg" "tika"];
  };
  services.broker = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/paperless-ngx/docker-compose.yml
    image = "redis:7";
    data.broker = {
      target = "/data";
      backup = false;
    };
    networks = ["database"];
    healthCheck.command = "redis-cli ping | grep -q PONG";
  };
  services.gotenberg = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/paperless-ngx/docker-compose.yml
    image = "gotenberg/gotenberg:8.36";
    command = ["gotenberg" "--chromium-disable-javascript=true" "--chromium-allow-list=file:///tmp/.*"];
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:3000/health"];
  };
  services.tika = {
    # https://github.com/getumbrel/umbrel-apps/blob/6372367174937ebc78556be6bc397979a29b7748/paperless/docker-compose.yml
    image = "apache/tika:3.2.3.0";
    # The image contains no program for a check.
    healthCheck = "none";
  };

  services.database = import ../postgres.nix {name = "paperless";};
  networks.database.internal = true;

  secrets = {
    paperless = {};
    database = {};
  };
}

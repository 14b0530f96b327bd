# Indexers. https://docs.linuxserver.io/images/docker-prowlarr/
import ../stack.nix {
  name = "prowlarr";
  description = "Indexers";

  services.prowlarr = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/prowlarr/docker-compose.yml
    image = "ghcr.io/linuxserver/prowlarr:2.5.2";
    environment = {
      PUID = 1000;
      PGID = 1000;
    };
    ports = [
      {
        host = 9696;
        container = 9696;
      }
    ];
    data.config = {
      target = "/config";
      owner = 1000;
      group = 1000;
    };

    networks = ["media"];
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:9696/ping"];
  };
  # They call each other by name: http://sonarr:8989.
  networks.media.external = true;
}

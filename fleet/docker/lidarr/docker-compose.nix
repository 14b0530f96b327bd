# Music. https://docs.linuxserver.io/images/docker-lidarr/
import ../stack.nix {
  name = "lidarr";
  description = "Music";

  services.lidarr = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/lidarr/docker-compose.yml
    image = "ghcr.io/linuxserver/lidarr:3.1.0";
    environment = {
      PUID = 1000;
      PGID = 1000;
    };
    ports = [
      {
        host = 8686;
        container = 8686;
      }
    ];
    data.config = {
      target = "/config";
      owner = 1000;
      group = 1000;
    };
    mounts = [
      {
        source = "/srv/media/music";
        target = "/music";
      }
      {
        source = "/srv/media/downloads";
        target = "/downloads";
      }
    ];
    networks = ["media"];
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:8686/ping"];
  };
  # They call each other by name: http://sonarr:8989.
  networks.media.external = true;
}

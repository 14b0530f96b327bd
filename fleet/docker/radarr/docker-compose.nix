# Films. https://docs.linuxserver.io/images/docker-radarr/
import ../stack.nix {
  name = "radarr";
  description = "Films";

  services.radarr = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/radarr/docker-compose.yml
    image = "ghcr.io/linuxserver/radarr:6.3.0";
    environment = {
      PUID = 1000;
      PGID = 1000;
    };
    ports = [
      {
        host = 7878;
        container = 7878;
      }
    ];
    data.config = {
      target = "/config";
      owner = 1000;
      group = 1000;
    };
    mounts = [
      {
        source = "/srv/media/films";
        target = "/films";
      }
      {
        source = "/srv/media/downloads";
        target = "/downloads";
      }
    ];
    networks = ["media"];
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:7878/ping"];
  };
  # They call each other by name: http://sonarr:8989.
  networks.media.external = true;
}

# Series. https://docs.linuxserver.io/images/docker-sonarr/
import ../stack.nix {
  name = "sonarr";
  description = "Series";

  services.sonarr = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/sonarr/docker-compose.yml
    image = "lscr.io/linuxserver/sonarr:4.0.19";
    environment = {
      PUID = 1000;
      PGID = 1000;
    };
    ports = [
      {
        host = 8989;
        container = 8989;
      }
    ];
    data.config = {
      target = "/config";
      owner = 1000;
      group = 1000;
    };
    mounts = [
      {
        source = "/srv/media/series";
        target = "/series";
      }
      {
        source = "/srv/media/downloads";
        target = "/downloads";
      }
    ];
    networks = ["media"];
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:8989/ping"];
  };
  # They call each other by name: http://sonarr:8989.
  networks.media.external = true;
}

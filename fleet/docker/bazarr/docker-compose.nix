# Subtitles. https://docs.linuxserver.io/images/docker-bazarr/
import ../stack.nix {
  name = "bazarr";
  description = "Subtitles";

  services.bazarr = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/bazarr/docker-compose.yml
    image = "lscr.io/linuxserver/bazarr:1.6.0";
    environment = {
      PUID = 1000;
      PGID = 1000;
    };
    ports = [
      {
        host = 6767;
        container = 6767;
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
        source = "/srv/media/films";
        target = "/films";
      }
    ];
    networks = ["media"];
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:6767/"];
  };
  # They call each other by name: http://sonarr:8989.
  networks.media.external = true;
}

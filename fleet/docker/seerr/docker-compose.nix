# Requests for films and series. https://docs.seerr.dev/getting-started/docker
import ../stack.nix {
  name = "seerr";
  description = "Requests for films and series";

  services.seerr = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/seerr/docker-compose.yml
    image = "ghcr.io/seerr-team/seerr:v3.4.1";
    ports = [
      {
        host = 5055;
        container = 5055;
      }
    ];
    # The image runs as 1000.
    data.config = {
      target = "/app/config";
      owner = 1000;
      group = 1000;
    };
    networks = ["media"];
    healthCheck.command = ["wget" "-q" "--spider" "http://127.0.0.1:5055/api/v1/status"];
  };
  networks.media.external = true;
}

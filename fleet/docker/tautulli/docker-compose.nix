# What is watched on Plex. https://docs.linuxserver.io/images/docker-tautulli/
import ../stack.nix {
  name = "tautulli";
  description = "What is watched on Plex";

  services.tautulli = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/tautulli/docker-compose.yml
    image = "lscr.io/linuxserver/tautulli:2.17.2";
    environment = {
      PUID = 1000;
      PGID = 1000;
    };
    ports = [
      {
        host = 8181;
        container = 8181;
      }
    ];
    data.config = {
      target = "/config";
      owner = 1000;
      group = 1000;
    };
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:8181/status"];
  };
}

# Logs of containers. https://dozzle.dev/guide/getting-started
import ../stack.nix {
  name = "dozzle";
  description = "Logs of containers";

  services.dozzle = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/dozzle/docker-compose.yml
    image = "amir20/dozzle:v10.7.3";
    environment.DOZZLE_NO_ANALYTICS = true;
    # Access to docker's socket means root: only the machine itself reaches this port (ssh -L 8888:localhost:8888 doc1).
    ports = [
      {
        host = 8888;
        container = 8080;
        address = "127.0.0.1";
      }
    ];
    mounts = [
      {
        source = "/run/docker.sock";
        target = "/var/run/docker.sock";
        readOnly = true;
      }
    ];
    healthCheck.command = ["/dozzle" "healthcheck"];
  };
}

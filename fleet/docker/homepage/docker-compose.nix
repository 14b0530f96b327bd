# The page with links to all the others. https://gethomepage.dev/installation/docker/
import ../stack.nix {
  name = "homepage";
  description = "The page with links to all the others";

  services.homepage = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/homepage/docker-compose.yml
    image = "ghcr.io/gethomepage/homepage:v1.13.2";
    # Other host names that are accepted: https://gethomepage.dev/installation/#homepage_allowed_hosts
    environment.HOMEPAGE_ALLOWED_HOSTS = "localhost:3002,proxmox-vm:3002";
    ports = [
      {
        host = 3002;
        container = 3000;
      }
    ];
    data.config = "/app/config";
  };
}

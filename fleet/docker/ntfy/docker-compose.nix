# Notifications. https://docs.ntfy.sh/install/#docker
import ../stack.nix {
  name = "ntfy";
  description = "Notifications";

  services.ntfy = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/ntfy/docker-compose.yml
    image = "binwiederhier/ntfy:v2.27.0";
    command = ["serve"];
    ports = [
      {
        host = 8089;
        container = 80;
      }
    ];
    data.cache = "/var/cache/ntfy";
    data.config = "/etc/ntfy";
    healthCheck.command = ["wget" "-q" "--spider" "http://127.0.0.1/v1/health"];
  };
}

# Passwords. https://github.com/dani-garcia/vaultwarden/wiki
import ../stack.nix {
  name = "vaultwarden";
  description = "Passwords";

  services.vaultwarden = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/vaultwarden/docker-compose.yml
    image = "vaultwarden/server:1.37.1";
    environment.SIGNUPS_ALLOWED = false;
    # ADMIN_TOKEN=…, as `vaultwarden hash` prints it, without quotes
    secrets = ["vaultwarden"];
    ports = [
      {
        host = 8222;
        container = 80;
      }
    ];
    data.data = "/data";
    stopDuringBackup = true;
  };
  secrets.vaultwarden = {};
}

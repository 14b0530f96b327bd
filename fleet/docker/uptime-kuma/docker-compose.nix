# Whether everything is up. https://github.com/louislam/uptime-kuma#-docker-compose
import ../stack.nix {
  name = "uptime-kuma";
  description = "Whether everything is up";

  services.uptime-kuma = {
    # https://github.com/getumbrel/umbrel-apps/blob/6372367174937ebc78556be6bc397979a29b7748/uptime-kuma/docker-compose.yml
    image = "louislam/uptime-kuma:2.5.0";
    ports = [
      {
        host = 3003;
        container = 3001;
      }
    ];
    data.data = "/app/data";
  };
}

# Budgets. https://actualbudget.org/docs/install/docker
import ../stack.nix {
  name = "actual";
  description = "Budgets";

  services.actual = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/actual-budget/docker-compose.yml
    image = "actualbudget/actual-server:26.8.1";
    ports = [
      {
        host = 5006;
        container = 5006;
      }
    ];
    data.data = "/data";
    healthCheck.command = ["node" "src/scripts/health-check.js"];
  };
}

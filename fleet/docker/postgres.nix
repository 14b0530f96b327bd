# A stack's database, for use among its services: `services.database = import ../postgres.nix {name = …;}`, with a network
# `database` that is internal and a secret `database` that contains POSTGRES_PASSWORD=….
#
# Roles and password are created with the data; later, change them with psql.
{
  name, # of the database, and of the role that owns it
  # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/paperless-ngx/docker-compose.yml
  image ? "postgres:17",
}: {
  inherit image;
  environment = {
    POSTGRES_DB = name;
    POSTGRES_USER = name;
  };
  secrets = ["database"];
  data.database = "/var/lib/postgresql/data";
  networks = ["database"];
  healthCheck.command = ["pg_isready" "-U" name "-d" name];
  stopDuringBackup = true;
}

{
  web = {
    ip = "192.0.2.10";
    user = "root";
    tags = ["front"];
  };
  db = {
    ip = "192.0.2.11";
    user = "root";
    tags = ["data"];
  };
}

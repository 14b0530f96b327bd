[
  {
    name = "web";
    system = "x86_64-linux";
  }
  {
    name = "db";
    system = "x86_64-linux";
  }
]

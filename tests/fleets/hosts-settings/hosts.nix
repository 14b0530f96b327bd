''
  192.0.2.10 web.example.org
  192.0.2.11 db.example.org
''

# Package metadata as used by configurations.
lib: {
  licenses = lib.genAttrs ["agpl3Only" "asl20" "bsd2" "bsd3" "free" "gpl2Only" "gpl3Only" "gpl3Plus" "isc" "lgpl3" "mit" "mpl20" "unfree"] (id: {
    spdxId = id;
    free = id != "unfree";
  });
  getExe = pkg: lib.getExe' pkg (pkg.meta.mainProgram or (lib.getName pkg));
  getExe' = pkg: program: "${lib.getBin pkg}/bin/${program}";
  addMetaAttrs = meta: pkg: pkg // {meta = (pkg.meta or {}) // meta;};
  setName = name: pkg: pkg // {inherit name;};
  lowPrio = pkg: pkg;
  hiPrio = pkg: pkg;
  setPrio = _: pkg: pkg;
  dontDistribute = pkg: pkg;
}

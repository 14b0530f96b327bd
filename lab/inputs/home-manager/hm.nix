# `lib.hm`: activation entries in order.
lib: {
  dag = rec {
    entryBetween = before: after: data: {inherit data after before;};
    entryAfter = after: entryBetween [] after;
    entryBefore = before: entryBetween before [];
    entryAnywhere = entryBetween [] [];
  };
  gvariant = {};
  types = {};
  inherit (lib) assertMsg;
}

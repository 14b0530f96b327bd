# Lists.
lib: let
  inherit (builtins) isList;
in rec {
  inherit (builtins) all any concatLists concatMap elem elemAt filter foldl' genList groupBy head length partition sort tail;

  findFirstIndex = pred: default: xs: findFirst (i: pred (elemAt xs i)) default (range 0 (length xs - 1));
  uniqueStrings = xs:
    builtins.attrNames (builtins.listToAttrs (map (name: {
        inherit name;
        value = null;
      })
      xs));
  mapCartesianProduct = f: sets: map f (cartesianProduct sets);
  compareLists = cmp: a: b:
    if a == [] || b == []
    then lib.compare (length a) (length b)
    else let
      first = cmp (head a) (head b);
    in
      if first == 0
      then compareLists cmp (tail a) (tail b)
      else first;
  singleton = x: [x];
  toList = x:
    if isList x
    then x
    else [x];
  forEach = xs: f: map f xs;
  inherit map;
  optional = cond: x:
    if cond
    then [x]
    else [];
  optionals = cond: xs:
    if cond
    then xs
    else [];
  flatten = x:
    if isList x
    then builtins.concatMap flatten x
    else [x];
  foldr = op: nul: xs: let
    n = length xs;
    go = i:
      if i == n
      then nul
      else op (elemAt xs i) (go (i + 1));
  in
    go 0;
  fold = foldr;
  foldl = op: nul: xs:
    if xs == []
    then nul
    else foldl op (op nul (head xs)) (tail xs);
  range = first: end:
    if first > end
    then []
    else genList (n: first + n) (end - first + 1);
  replicate = n: x: genList (_: x) n;
  imap0 = f: xs: genList (n: f n (elemAt xs n)) (length xs);
  imap1 = f: xs: genList (n: f (n + 1) (elemAt xs n)) (length xs);
  last = xs: elemAt xs (length xs - 1);
  init = xs: take (length xs - 1) xs;
  sublist = start: count: xs: genList (n: elemAt xs (n + start)) (lib.max 0 (lib.min count (length xs - start)));
  take = sublist 0;
  drop = n: xs: sublist n (length xs) xs;
  reverseList = xs: let n = length xs; in genList (i: elemAt xs (n - i - 1)) n;
  unique = foldl' (seen: x:
    if elem x seen
    then seen
    else seen ++ [x]) [];
  allUnique = xs: length (unique xs) == length xs;
  count = pred:
    foldl' (n: x:
      if pred x
      then n + 1
      else n)
    0;
  remove = x: filter (y: y != x);
  subtractLists = xs: filter (x: !elem x xs);
  intersectLists = xs: filter (x: elem x xs);
  mutuallyExclusive = a: b: !builtins.any (x: elem x b) a;
  findFirst = pred: default: xs: let
    found = filter pred xs;
  in
    if found == []
    then default
    else head found;
  findSingle = pred: default: multiple: xs: let
    found = filter pred xs;
  in
    if found == []
    then default
    else if length found > 1
    then multiple
    else head found;
  zipListsWith = f: a: b: genList (n: f (elemAt a n) (elemAt b n)) (lib.min (length a) (length b));
  zipLists = zipListsWith (fst: snd: {inherit fst snd;});
  sortOn = key: xs:
    map (x: x.value) (sort (a: b: a.key < b.key) (map (value: {
        inherit value;
        key = key value;
      })
      xs));
  naturalSort = sort (a: b: builtins.compareVersions a b < 0);
  cartesianProduct = sets: foldl' (acc: name: builtins.concatMap (set: map (value: set // {${name} = value;}) sets.${name}) acc) [{}] (builtins.attrNames sets);
  crossLists = f: foldl' (fs: args: builtins.concatMap (g: map g args) fs) [f];
  ifilter0 = pred: xs: map (x: x.v) (filter (x: pred x.i x.v) (imap0 (i: v: {inherit i v;}) xs));
  dropEnd = n: xs: take (length xs - n) xs;
  takeEnd = n: xs: drop (lib.max 0 (length xs - n)) xs;
  concat = a: b: concatLists [a b];
}

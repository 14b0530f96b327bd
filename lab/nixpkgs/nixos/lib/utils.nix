# `utils`, the module argument.
{lib, ...}: {
  escapeSystemdPath = lib.escapeSystemdPath;
  escapeSystemdExecArg = arg: builtins.toJSON (builtins.replaceStrings ["%" "$"] ["%%" "$$"] (toString arg));
  escapeSystemdExecArgs = lib.concatMapStringsSep " " (arg: builtins.toJSON (builtins.replaceStrings ["%" "$"] ["%%" "$$"] (toString arg)));
  toShellPath = shell:
    if lib.isDerivation shell
    then "/run/current-system/sw${shell.shellPath or "/bin/bash"}"
    else toString shell;
}

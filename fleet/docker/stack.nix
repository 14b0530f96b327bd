# A stack as a module, for the imports of a machine: `import ../stack.nix {name = …; services = …;}` takes the options of
# homelab.stacks.<name> (modules/nixos/homelab/stacks/stack.nix). README.md says how one is added.
{name, ...} @ stack: {
  # Not only in this fleet; a module that is there already is not taken twice.
  imports = [../modules/nixos/homelab/stacks];
  homelab.stacks.${name} = removeAttrs stack ["name"];
}

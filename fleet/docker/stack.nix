# A stack as a module for a machine's imports: `import ../stack.nix {name = …; services = …;}` takes the options of
# homelab.stacks.<name> (modules/nixos/homelab/stacks/stack.nix). README.md says how to add one.
{name, ...} @ stack: {
  # Also works outside of this fleet; a module that is imported already is not imported twice.
  imports = [../modules/nixos/homelab/stacks];
  homelab.stacks.${name} = removeAttrs stack ["name"];
}

"""Print the imports of packages below a directory as JSON: `python imports.py DIRECTORY PACKAGE…`.

A program of its own: Python resolves a package's name once per process, and several trees are compared.
Shape: `{"modules": [name…], "imports": [[importer, imported]…], "typing_only": [[importer, imported]…]}`.
"""

import json
import sys

import grimp


def main(directory: str, packages: list[str]) -> None:
    sys.path.insert(0, directory)
    edges = []
    for exclude in (False, True):
        graph = grimp.build_graph(*packages, cache_dir=None, exclude_type_checking_imports=exclude)
        modules = sorted(graph.modules)
        edges.append({(module, name) for module in modules for name in graph.find_modules_directly_imported_by(module)})
    every, at_runtime = edges
    json.dump(
        {"modules": modules, "imports": sorted(every), "typing_only": sorted(every - at_runtime)},
        sys.stdout,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

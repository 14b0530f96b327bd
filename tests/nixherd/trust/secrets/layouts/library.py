"""All layouts of `.sops.yaml` that were made for the tests, and repositories with several of them."""

from collections.abc import Mapping

from tests.nixherd.trust.secrets.layouts.layout import Layout
from tests.nixherd.trust.secrets.layouts.unusual import UNUSUAL
from tests.nixherd.trust.secrets.layouts.usual import USUAL

LAYOUTS: Mapping[str, Layout] = {layout.name: layout for layout in (*USUAL, *UNUSUAL)}

TREES: Mapping[str, tuple[str, ...]] = {
    "one at the root": ("plain",),
    "one in secrets/": ("nested",),
    "root and secrets/": ("headings", "nested"),
}
"""repositories: the layouts in them, each at its place"""

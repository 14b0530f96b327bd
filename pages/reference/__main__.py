"""Write the reference pages; those that nothing makes any more are removed."""

from pages.markdown import ROOT
from pages.reference import DIRECTORY, PAGES

directory = ROOT / DIRECTORY
directory.mkdir(exist_ok=True)
for path in [*directory.glob("*.md"), *directory.glob("*.json")]:
    if path.name not in PAGES:
        path.unlink()
        print(f"{path.relative_to(ROOT)}: removed")
for name, make in PAGES.items():
    path, text = directory / name, make()
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        print(f"{path.relative_to(ROOT)}: written")

"""What keys are called: anchors and comments; headings are nobody's name."""

import pytest

from nixherd.trust.secrets.generated import says_so
from nixherd.trust.secrets.key_names import like_others
from nixherd.trust.secrets.rules import parse_rules
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.layouts.layout import KEYS, Layout
from tests.nixherd.trust.secrets.layouts.library import LAYOUTS

ALL = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
A, B, C = (key(name).recipient for name in "abc")


@ALL
def test_names_are_as_the_library_says(layout: Layout) -> None:
    names = parse_rules(layout.text).names
    labels = {label: names[value] for label, value in KEYS.items() if value in names}
    assert labels == {label: layout.names[label] for label in labels}
    assert set(labels) == set(layout.names)


@ALL
def test_what_is_generated_is_known(layout: Layout) -> None:
    assert (says_so(layout.text) is not None) == layout.is_generated


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (f"# Hosts\n- {A}\n- {B}\n# People\n- {C}", {}),
        (f"# web\n- {A}\n# db\n- {B}", {A: "web", B: "db"}),
        (f"# Hosts\n# web\n- {A}\n# db\n- {B}", {A: "web", B: "db"}),
        (f"# --- ours ---\n- {A}\n- {B} # db", {B: "db"}),
        (f"# ours:\n- {A}", {}),
        (f"# some of ours\n- {A}\n- {B}", {}),
        (f"# web\n\n- {A}", {}),
        (f"# - &old {C}\n- {A}", {}),
        (f"- &web {A} # the server\n- {B} # db, in the cellar", {A: "web", B: "db, in the cellar"}),
        (f"- {A} # web\n- &host_web {A}", {A: "host_web"}),
        (f"- [{A}, {B}] # both", {}),
    ],
)
def test_a_heading_is_nobodys_name(keys: str, names: dict[str, str]) -> None:
    text = f"keys:\n{keys}\ncreation_rules:\n# everybody's\n- age: {A}\n"
    assert parse_rules(text).names == names


def test_keys_in_a_mapping_are_called_by_its_keys() -> None:
    text = (
        f"keys:\n  web: {A}\n  db: &host_db {B}\ncreation_rules:\n  # what everybody reads\n  - age: {A},{C} # both\n"
    )
    assert parse_rules(text).names == {A: "web", B: "host_db"}


@pytest.mark.parametrize(
    ("others", "around", "name"),
    [
        ({"web": "host_web", "db": "host_db"}, (), "host_new-1"),
        ({"web": "web", "db": "db"}, (), "new-1"),
        ({"web-1": "srv-web_1"}, (), "srv-new-1"),
        ({"web": "web_cellar"}, (), "new-1"),
        ({"web": "alice_web", "db": "alice_db"}, (), "alice_new-1"),
        ({"web": "web (server)", "db": "db (server)"}, (), "new-1 (server)"),
        ({"web": "webber"}, (), "new-1"),
        ({}, ("admin_alice", "system_web"), "system_new-1"),
        ({}, ("alice", "web"), "new-1"),
        ({}, ("alice-user", "web-host"), "new-1-host"),
    ],
)
def test_a_new_host_is_called_as_the_others_are(others: dict[str, str], around: tuple[str, ...], name: str) -> None:
    assert like_others("new-1", others, around) == name

"""Facts of pyinfra: `from nixherd.facts import nixos`; in the checkout `facts` is the same package."""

from nixherd.base.short_name import use_long_name

use_long_name(__name__)

"""The short name of nixherd.operations for what people type, where pyinfra runs in the installed project."""

from nixherd.base.short_name import use_long_name

use_long_name(__name__)

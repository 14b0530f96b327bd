"""Operations of pyinfra: `from nixherd.operations import proxmox`; in the checkout `operations` is the same package."""

from nixherd.base.short_name import use_long_name

use_long_name(__name__)

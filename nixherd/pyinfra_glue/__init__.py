"""What pyinfra and the library know of each other."""

import sys

# pyinfra switches bytecode off, so that none of a deploy file is left beside it; then each run would compile the whole
# library anew, which takes longer than all else that it does before it connects. As Python was started it is here.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

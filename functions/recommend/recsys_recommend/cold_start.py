"""While the function starts, nothing that is made can be thrown away: looking for it takes 15 ms of 450.

Importing this module, before all others, turns the garbage collector off; `finish` turns it on again.
"""

from __future__ import annotations

import gc

gc.disable()


def finish() -> None:
    """Look for garbage again, but never among what is there by now."""
    gc.freeze()
    gc.enable()

"""What a test module that trains needs: one worker that loads TensorFlow, and patience with one warning.

Such a module imports what imports TensorFlow inside its fixtures and tests, since every worker imports every module.
"""

from __future__ import annotations

import pytest

TENSORFLOW = (
    pytest.mark.slow,
    pytest.mark.xdist_group("tensorflow"),
    # Keras's own, when it writes an .h5 file under NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
)
"""`pytestmark = list(TENSORFLOW)`."""

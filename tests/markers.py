"""Marks for test modules that use TensorFlow.

Such modules are not in `tests/unit`, because pytest imports every module that it collects, also those whose tests
`make test-fast` deselects, and TensorFlow takes seconds to import.
"""

from __future__ import annotations

import pytest

TENSORFLOW = (
    pytest.mark.slow,
    pytest.mark.xdist_group("tensorflow"),
    # Keras raises it when it writes an .h5 file with NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
)
"""Set `pytestmark = list(TENSORFLOW)`: slow tests that pytest-xdist runs in a single worker."""

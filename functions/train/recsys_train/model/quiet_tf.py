"""TensorFlow and Keras, imported without their greetings.

Both write to stderr from C++ before any log level applies, which would stand in the middle of a progress bar.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from recsys.settings import set_default_environment

_STDERR: Final = 2


@contextmanager
def _silent_stderr() -> Iterator[None]:
    kept = os.dup(_STDERR)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, _STDERR)
    try:
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(silence)
        os.close(kept)


set_default_environment("TF_CPP_MIN_LOG_LEVEL", "2")
with _silent_stderr():
    import absl.logging
    import keras
    import tensorflow as tf

    tf.constant(0)  # the first operation greets too

# Each training makes its graph anew, which TensorFlow would warn about; and HDF5 is what we promise, whatever Keras
# says of it.
tf.get_logger().setLevel("ERROR")
absl.logging.set_verbosity(absl.logging.ERROR)

__all__ = ["keras", "tf"]

"""Import TensorFlow and Keras without their start-up messages.

Both libraries write messages to stderr from C++ before any log level applies. The messages would interrupt a progress
bar.
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
    original = os.dup(_STDERR)
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, _STDERR)
    try:
        yield
    finally:
        os.dup2(original, _STDERR)
        os.close(null_device)
        os.close(original)


set_default_environment("TF_CPP_MIN_LOG_LEVEL", "2")
with _silent_stderr():
    import absl.logging
    import keras
    import tensorflow as tf

    tf.constant(0)  # the first operation prints messages as well

# TensorFlow warns about repeated retracing, but each training needs its own graph. Keras warns that HDF5 is a legacy
# format, but `model.h5` is part of the contract.
tf.get_logger().setLevel("ERROR")
absl.logging.set_verbosity(absl.logging.ERROR)

__all__ = ["keras", "tf"]

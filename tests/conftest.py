"""TensorFlow keeps its greetings to itself in the tests."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

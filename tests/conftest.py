"""How the tests run: TensorFlow without its greetings, two processes on two cores, the longest files first."""

import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Two processes share two cores: a second thread in one would only take turns with the other process.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# These take longest. Two processes share the files out in this order: a long one that came last would run alone.
LONGEST = ["test_zoo", "test_export", "test_tasks", "test_sound_and_clips", "test_runs", "test_tfds", "test_captions"]


@pytest.fixture(scope="session", autouse=True)
def graphs_as_they_are_written():
    """A graph runs a few steps here: making it faster takes a quarter of the tests' time. Commands that tests start in
    processes of their own have it made faster, as users do."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))

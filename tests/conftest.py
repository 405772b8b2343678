"""How the tests run: TensorFlow without its greetings, two processes on two cores, the longest files first."""

import os
import shutil

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Two processes share two cores: a second thread in one would only take turns with the other process.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# These take longest. Two processes share the files out in this order: a long one that came last would run alone.
LONGEST = ["test_zoo", "test_export", "test_tasks", "test_sound_and_clips", "test_runs", "test_tfds", "test_captions"]

BROWSER_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def graphs_as_they_are_written(request):
    """A graph runs a few steps here: making it faster takes longer than it saves. Commands that tests start in
    processes of their own have it made faster, as users do, and so have servers: it shows in what they say of a fault.
    """
    import tensorflow as tf

    serves = request.module.__name__.startswith(("test_serving", "test_conformance"))
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not serves})


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium without a screen, that logs what a page says and asks for."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*BROWSER_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1000,1400"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))

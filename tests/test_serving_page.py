"""The page of `zoo serve` in Chromium: `pytest -n0 -m browser`. Needs chromium, chromium-driver and selenium."""

import models as examples
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from running import running

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")

    @examples.function(photo=([None], tf.string), title=([None], tf.string))
    def shown(photo, title):
        return {"photo_bytes": photo, "length": tf.strings.length(photo), "title": tf.strings.upper(title)}

    examples.save(folder / "shown" / "1", {"serving_default": shown})
    examples.half_plus_two(folder / "half_plus_two" / "1")
    (folder / "broken" / "1").mkdir(parents=True)
    with running(folder, retries=0) as server:
        yield server


def select(browser, id, value):
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", id)).select_by_visible_text(value)


def asked(browser):
    """The text of the answer to what stands in the form."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.execute_script("document.getElementById('answer').replaceChildren()")
    browser.find_element("css selector", "#ask button").click()
    WebDriverWait(browser, 20).until(lambda b: b.find_element("id", "answer").text)
    return browser.find_element("id", "answer").text


@pytest.fixture
def page(browser, server):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"http://127.0.0.1:{server.rest_port}/")
    WebDriverWait(browser, 20).until(lambda b: b.find_elements("css selector", "#models tr"))
    return browser


def test_a_picture_and_a_text_are_asked_about(page, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype="uint8")
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    select(page, "model", "shown")
    page.find_element("css selector", "input[type=file][data-of=photo]").send_keys(str(tmp_path / "photo.png"))
    page.find_element("css selector", "input[type=text][name=title]").send_keys("red boots <b>")
    said = asked(page)
    assert said.startswith("200")
    assert "RED BOOTS <B>" in said  # as a text: the page does not take an answer for a part of itself
    assert str((tmp_path / "photo.png").stat().st_size) in said
    (picture,) = page.find_elements("css selector", "#answer img")
    assert (picture.get_property("naturalWidth"), picture.get_property("naturalHeight")) == (30, 20)


def test_models_and_requests_are_listed(page):
    rows = [row.text for row in page.find_elements("css selector", "#models tr")]
    assert [row.split()[0] for row in rows] == ["broken", "half_plus_two", "shown"]
    assert "Could not load" in rows[0]
    select(page, "model", "half_plus_two")
    page.find_element("css selector", "input[name=x]").send_keys("5")
    assert "4.5" in asked(page)
    page.find_element("css selector", "input[name=x]").send_keys("x")
    assert "not asked" in asked(page)
    figures = [row.text for row in page.find_elements("css selector", "#figures tr")]
    assert "half_plus_two OK 1" in figures


def test_nothing_goes_wrong_on_the_page_or_comes_from_elsewhere(page, server):
    assert [
        line for line in page.get_log("browser") if line["level"] == "SEVERE" and "favicon" not in line["message"]
    ] == []
    urls = page.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert all(url.startswith(f"http://127.0.0.1:{server.rest_port}/") for url in urls)


def test_a_server_with_a_token_is_entered_by_it(browser, tmp_path):
    from selenium.webdriver.support.ui import WebDriverWait

    def enter(token):
        field = browser.find_element("id", "token")
        field.clear()
        field.send_keys(token)
        browser.find_element("css selector", "#enter button").click()

    examples.half_plus_two(tmp_path / "half_plus_two" / "1")
    with running(tmp_path, token="open sesame") as server:
        browser.get(f"http://127.0.0.1:{server.rest_port}/")
        WebDriverWait(browser, 20).until(lambda b: b.find_element("id", "enter").is_displayed())
        assert browser.find_elements("css selector", "#models tr") == []
        enter("open barley")
        WebDriverWait(browser, 20).until(lambda b: b.find_element("id", "refused").text)
        assert browser.find_element("id", "refused").text == "The server does not know this token."
        enter("open sesame")
        WebDriverWait(browser, 20).until(lambda b: b.find_elements("css selector", "#models tr"))
        assert not browser.find_element("id", "enter").is_displayed()
        select(browser, "model", "half_plus_two")
        browser.find_element("css selector", "input[name=x]").send_keys("5")
        assert "4.5" in asked(browser)
        browser.get_log("browser")  # the refusals, 401, are logged by the browser as errors

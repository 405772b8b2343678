"""The page of `zoo demo`: what its tabs answer; and, with `pytest -n0 -m browser`, the page itself in Chromium."""

import json
import os
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from PIL import Image

import zoo
from mmkeras import data
from zoo import _cli, _demo, _demo_tabs

NEEDS_GRADIO = "the page needs the extra `demo`"
TABS = {
    "autoencoder": ["Reconstruct", "Explain"],
    "captioner": ["Caption"],
    "conditional_gan": ["Draw"],
    "dual_encoder": ["Search", "Explain"],
    "fusion_classifier": ["Classify", "Explain"],
    "vqa": ["Ask", "Explain"],
}
ROWS = data.scenes(160).test


@pytest.fixture(scope="module")
def runs():
    """The weights that come with the zoo by the model's name, searching few pictures."""
    found = {name: zoo.load(f"{name}:scenes") for name in TABS}
    for run in found.values():
        run.source = data.scenes(160)
    return found


def tab(name):
    return next(tab for tab in _demo_tabs.TABS if tab.name == name)


def answer(name, run, **values):
    return tab(name).answer(run, values)


@pytest.mark.long  # six models are traced
def test_a_run_gives_the_tabs_that_its_model_serves(runs):
    for name, run in runs.items():
        assert [tab.name for tab, _ in _demo_tabs.tabs_of([run])] == TABS[name]
    both = _demo_tabs.tabs_of([runs["vqa"], runs["captioner"], runs["fusion_classifier"]])
    assert [(tab.name, run.name) for tab, run in both] == [
        ("Classify", "fusion_classifier"), ("Ask", "vqa"), ("Caption", "captioner"), ("Explain", "vqa"),
        ("Explain", "fusion_classifier"),
    ]  # fmt: skip
    assert [tab.name for tab, _ in _demo_tabs.one_of_each(_demo_tabs.tabs_of(list(runs.values())))] == list(ANSWERS)


def test_a_run_without_a_tab_is_told():
    config = types.SimpleNamespace(names=["image"])
    run = types.SimpleNamespace(called="runs/few", name="few_shot", signatures={}, model=None, config=config)
    with pytest.raises(ValueError, match="^runs/few holds a run of `few_shot`, for which there is no tab. There are: "
                       "search, classify, ask, caption, draw, reconstruct, explain.$"):  # fmt: skip
        _demo_tabs.tabs_of([run])


@pytest.mark.long  # six models are traced
def test_search_finds_the_pictures_nearest_to_a_text(runs):
    run = runs["dual_encoder"]
    found = answer("Search", run, text=ROWS.cells("text")[3])
    lines = [line.split() for line in found["text"].splitlines()]
    assert lines[0][1] == ROWS.cells("id")[3]
    assert [score for score, _ in lines] == sorted((score for score, _ in lines), reverse=True)
    expected = run.embed("image", ROWS) @ run.embed("text", [ROWS.cells("text")[3]])[0]
    assert float(lines[0][0]) == pytest.approx(expected.max(), abs=0.006)
    picture, caption = found["pictures"][0]
    assert caption == lines[0][0]
    np.testing.assert_array_equal(picture, np.array(Image.open(data.opened(ROWS.cells("image")[3]))))


@pytest.mark.long  # six models are traced
def test_classify_answers_as_predict_and_otherwise_with_a_modality_switched_off(runs):
    run, labels = runs["fusion_classifier"], ROWS.cells("label")
    other = next(i for i, label in enumerate(labels) if label != labels[0])
    row = {"image": ROWS.cells("image")[0], "text": ROWS.cells("text")[other]}  # they disagree
    both = answer("Classify", run, **row)
    label = run.predict(**{name: [value] for name, value in row.items()})["label"][0]
    assert both["text"] == ""
    assert max(both["shares"], key=both["shares"].get) == label
    assert sum(both["shares"].values()) == pytest.approx(1, abs=1e-5)
    for name, true in (("image", labels[0]), ("text", labels[other])):
        one = answer("Classify", run, **{name: row[name]})
        assert one["shares"].keys() == both["shares"].keys()
        assert max(one["shares"], key=one["shares"].get) == true


@pytest.mark.long  # six models are traced
def test_ask_answers_and_shows_where_it_looked(runs):
    found = answer("Ask", runs["vqa"], image=ROWS.cells("image")[0], question=ROWS.cells("question")[0])
    given = {name: [ROWS.cells(name)[0]] for name in ("image", "question")}
    assert max(found["shares"], key=found["shares"].get) == runs["vqa"].predict(**given)["answer"][0]
    assert [(picture.shape, caption) for picture, caption in found["pictures"]] == [
        ((48, 48, 3), "what it saw"), ((48, 48, 3), "where it looked"),
    ]  # fmt: skip


@pytest.mark.long  # six models are traced
def test_caption_writes_sentences_and_shows_a_picture_a_word(runs):
    run = runs["captioner"]
    found = answer("Caption", run, image=ROWS.cells("image")[0])
    best = run.predict("generate", image=[ROWS.cells("image")[0]])["sentences"][0][0]
    assert found["text"].startswith(f"{best} (")
    assert " ".join(word for _, word in found["pictures"]) == best
    assert {picture.shape for picture, _ in found["pictures"]} == {(48, 48, 3)}


@pytest.mark.long  # six models are traced
def test_draw_gives_a_picture_a_seed_and_the_same_for_the_same(runs):
    one, same = (answer("Draw", runs["conditional_gan"], text="a red circle", seed=5)["pictures"] for _ in range(2))
    other = answer("Draw", runs["conditional_gan"], text="a red circle", seed=6)["pictures"]
    assert [caption for _, caption in one] == [f"seed {seed}" for seed in range(5, 5 + _demo_tabs.NUM_PICTURES)]
    np.testing.assert_array_equal(one[1][0], same[1][0])
    np.testing.assert_array_equal(one[1][0], other[0][0])
    assert (one[0][0] != one[1][0]).any()


@pytest.mark.long  # six models are traced
def test_reconstruct_gives_each_modality_from_all_and_from_each(runs):
    row = {name: ROWS.cells(name)[0] for name in ("image", "text")}
    found = answer("Reconstruct", runs["autoencoder"], **row)
    ways = ["from image and text", "from image", "from text"]
    assert [caption for _, caption in found["pictures"]] == [f"image {way}" for way in ways]
    assert [line.split(":")[0] for line in found["text"].splitlines()] == [f"text {way}" for way in ways]
    alone = answer("Reconstruct", runs["autoencoder"], text=row["text"])
    assert [caption for _, caption in alone["pictures"]] == ["image from text"]
    np.testing.assert_array_equal(alone["pictures"][0][0], found["pictures"][2][0])


@pytest.mark.long  # six models are traced
def test_explain_draws_the_figure(runs):
    row = {name: ROWS.cells(name)[0] for name in ("image", "text")}
    found = answer("Explain", runs["fusion_classifier"], **row)
    told = runs["fusion_classifier"].explain(**row)
    assert found["text"] == f"{told['of']}: {told['score']:.4f}"
    assert len(set(found["figure"].convert("L").getdata())) > 50  # something is drawn
    assert found["figure"].size[0] < 900  # two panels beside each other, that a phone can show


def test_more_kinds_of_answers():
    """What other models say, without training them: each signature's answer is made up."""
    said = {
        "serving_default": {"tag_probabilities": [[0.9, 0.2]], "caption": ["a ring"], "polarity": [0.25]},
        "contributions": {"base": [0.0], "image": [0.5], "remark": [-0.25]},
    }
    reader = types.SimpleNamespace(vocabulary=["red", "blue"])
    run = types.SimpleNamespace(
        signatures=said, predict=lambda signature="serving_default", **raw: said[signature],
        preprocessor=types.SimpleNamespace(reader=lambda name: reader),
    )  # fmt: skip
    found = answer("Classify", run, image=b"", remark="")
    assert found == {
        "text": "tags: red\ncaption: a ring\npolarity: +0.25\nmoved by: image +0.50, remark -0.25", "shares": None,
    }  # fmt: skip


@pytest.mark.long  # six models are traced
def test_examples_are_rows_of_the_test_split(runs):
    rows = _demo_tabs.examples_of(runs["vqa"], {"image": "image", "question": "text"})
    assert len(rows) == 8
    assert rows[1] == {name: ROWS.cells(name)[2] for name in ("image", "question")}
    assert [list(row) for row in _demo_tabs.examples_of(runs["vqa"], {"vector": "vector"})] == [["vector"]] * 8
    assert _demo_tabs.examples_of(runs["vqa"], {"unheard": "text"}) == []


def test_a_run_without_its_data_has_no_examples():
    def gone(name):
        raise data.DataError("No such file: shoes/test.jsonl.")

    assert _demo_tabs.examples_of(types.SimpleNamespace(split=gone), {"image": "image"}) == []


def test_what_is_given_is_read_and_what_is_missing_told():
    asks = {"image": "image", "text": "text", "vector": "vector"}
    picture = Image.new("RGB", (4, 4), "red")
    given = {"image": picture, "text": " a ring ", "vector": "0.5, 1 2"}
    values = _demo_tabs.raw_values(tab("Classify"), asks, given, {})
    assert values["text"] == "a ring"
    assert values["vector"] == [0.5, 1.0, 2.0]
    np.testing.assert_array_equal(np.array(Image.open(data.opened(values["image"]))), np.array(picture))
    assert list(_demo_tabs.raw_values(tab("Classify"), asks, given, {"image": False})) == ["text", "vector"]
    mistakes = {
        "Give a picture for `image`, or switch it off.": ({"image": None}, {}),
        "Give a text for `text`, or switch it off.": ({"text": "  "}, {}),
        "Expected numbers for `vector`, such as 0.5, 1, 2. Received: red": ({"vector": "red"}, {}),
        "All is switched off. Switch on `image` or `text` or `vector`.": ({}, dict.fromkeys(asks, False)),
    }
    for message, (changed, switches) in mistakes.items():
        with pytest.raises(ValueError, match=f"^{message}"):
            _demo_tabs.raw_values(tab("Classify"), asks, {**given, **changed}, switches)
    with pytest.raises(ValueError, match="^Give a text for `question`.$"):  # what cannot be switched off
        _demo_tabs.raw_values(tab("Ask"), {"question": "text"}, {"question": ""}, {})


@pytest.mark.long  # six models are traced
def test_a_mistake_is_a_line_on_the_page(runs, tmp_path):
    gradio = pytest.importorskip("gradio", reason=NEEDS_GRADIO)
    with pytest.raises(gradio.Error, match="Give a text for `question`"):
        _demo.answered(tab("Ask"), runs["vqa"], {"image": Image.new("RGB", (9, 9)), "question": ""}, {})
    shares, pictures = _demo.answered(tab("Ask"), runs["vqa"], {"image": Image.new("L", (9, 9)), "question": "<b>"}, {})
    assert len(shares) == 10
    assert {picture.dtype for picture, _ in pictures} == {np.dtype("uint8")}
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    field = _demo._field(gradio, "image", "image")
    with pytest.raises(gradio.Error, match="This file is no picture that can be read."):
        field.preprocess(gradio.data_classes.ImageData(path=str(tmp_path / "broken.png")))


def test_without_gradio_a_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert _cli.main(["demo"]) == 2
    assert capsys.readouterr().err == "zoo: error: zoo demo needs Gradio: pip install gradio.\n"


def test_a_run_that_is_none_and_a_port_that_is_taken_are_told(capsys):
    pytest.importorskip("gradio", reason=NEEDS_GRADIO)
    assert _cli.main(["demo", "captoiner:scenes", "--port", "0"]) == 2
    assert "There are no weights `captoiner:scenes`. Did you mean `captioner:scenes`?" in capsys.readouterr().err
    assert _cli.main(["demo", "--port", "70000"]) == 2
    assert "Expected a port from 0 to 65535. Received: --port 70000." in capsys.readouterr().err
    with _demo._bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert _cli.main(["demo", "--port", str(port)]) == 2
        assert f"Cannot listen on 127.0.0.1:{port}: Address already in use. Take another" in capsys.readouterr().err


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory, browser):
    """The browser, on the page of the command, which runs in a process of its own."""
    pytest.importorskip("gradio", reason=NEEDS_GRADIO)
    folder = tmp_path_factory.mktemp("page")
    code, names = "import sys; from zoo._cli import main; sys.exit(main())", [run.called for run in runs.values()]
    command = [sys.executable, "-c", code, "demo", *names, "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        browser.url = next(line for line in server.stdout if line.startswith("http")).split()[0]
        browser.get_log("performance")  # what the browser asked for before
        browser.get(browser.url)
        wait(browser, lambda: shown(browser, "button.primary"))
        yield browser
        browser.get("about:blank")
        server.terminate()
        assert server.wait(60) == 0
    assert list(folder.glob("zoo-demo-*")) == []  # it leaves no pictures behind


def wait(browser, true, seconds=120):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds).until(lambda _: true())


def shown(browser, selector):
    return [one for one in browser.find_elements("css selector", selector) if one.is_displayed()]


def open_tab(browser, name):
    """Shows a tab, the first whose name begins so; returns its button."""

    def tabs():
        return [one for one in shown(browser, "[role=tab], .overflow-dropdown button") if one.text.startswith(name)]

    if not tabs():  # it has no room, and stands in a menu
        shown(browser, ".overflow-menu > button")[0].click()
    wait(browser, tabs)[0].click()
    wait(browser, lambda: [one.text for one in shown(browser, "button.primary")] == [name.split(":")[0]])
    return shown(browser, "button.primary")[0]


def filled(browser):
    """The pictures and texts that are given."""
    fields = [
        one.get_property("currentSrc") or one.get_property("value")
        for one in shown(browser, ".given img, .given textarea")
    ]
    return [value for value in fields if value]


ANSWERS = {  # where in the page an answer stands, and how many inputs it is to
    "Search": (".answer .thumbnail-item img", 1), "Classify": (".answer .confidence-set", 2),
    "Ask": (".answer .thumbnail-item img", 2), "Caption": (".answer .thumbnail-item img", 1),
    "Draw": (".answer .thumbnail-item img", 1), "Reconstruct": (".answer .thumbnail-item img", 2),
    "Explain": (".answer img", 2),
}  # fmt: skip


@pytest.mark.browser
@pytest.mark.parametrize("name", ANSWERS)
def test_each_tab_answers_to_a_click_on_an_example(page, name):
    answer, num_inputs = ANSWERS[name]
    button = open_tab(page, name)
    wait(page, lambda: shown(page, ".example button.gallery-item"))[0].click()
    wait(page, lambda: len(filled(page)) == num_inputs)
    button.click()
    assert wait(page, lambda: shown(page, answer))


@pytest.mark.browser
def test_mistakes_are_told_in_a_line(page, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    page.refresh()
    wait(page, lambda: shown(page, "button.primary"))
    button = open_tab(page, "Caption")
    button.click()
    assert "Give a picture for `image`." in told(page)
    panel = button.find_element("xpath", "ancestor::*[@role='tabpanel']")
    upload = panel.find_element("css selector", ".given input[type=file]")
    upload.send_keys(str(tmp_path / "broken.png"))
    wait(page, lambda: filled(page))
    button.click()
    assert "This file is no picture that can be read." in told(page)


def told(browser):
    """The message that the page shows, which is then put away."""
    message = wait(browser, lambda: shown(browser, ".toast-body"))[0]
    said = message.text
    message.find_element("css selector", ".toast-close").click()
    wait(browser, lambda: not shown(browser, ".toast-body"))
    return said


@pytest.mark.browser
def test_the_keyboard_reaches_the_button_and_asks(page):
    from selenium.webdriver.common.keys import Keys

    page.refresh()
    wait(page, lambda: shown(page, "button.primary"))
    button = open_tab(page, "Draw")
    shown(page, ".given textarea")[0].send_keys("a red circle")
    for _ in range(3):  # the seed, its arrows, the button
        page.switch_to.active_element.send_keys(Keys.TAB)
        if page.switch_to.active_element == button:
            break
    assert page.switch_to.active_element == button
    button.send_keys(Keys.ENTER)
    wait(page, lambda: len(shown(page, ".answer .thumbnail-item img")) == _demo_tabs.NUM_PICTURES)


@pytest.mark.browser
def test_a_phone_shows_every_tab_without_scrolling_sideways(page):
    phone = {"width": 390, "height": 1600, "deviceScaleFactor": 1, "mobile": True}
    for name in (*ANSWERS, "Explain: dual_encod…"):  # as long as a title can be
        open_tab(page, name)
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        try:
            wait(page, lambda: page.execute_script("return screen.width") == 390)
            time.sleep(1)  # until the page is laid out
            assert page.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390], name
        finally:
            page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            wait(page, lambda: page.execute_script("return innerWidth") > 390)
            time.sleep(1)


@pytest.mark.browser
def test_nothing_goes_wrong_on_the_page_or_comes_from_elsewhere(page):
    wrong = [line["message"] for line in page.get_log("browser") if line["level"] == "SEVERE"]
    assert [message for message in wrong if "favicon" not in message] == []
    events = [json.loads(line["message"])["message"] for line in page.get_log("performance")]
    urls = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert len(urls) > 20
    assert [url for url in urls if not url.startswith((page.url, "data:", "blob:", "chrome"))] == []

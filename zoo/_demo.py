"""The command `zoo demo`: a page with a tab for each thing that the given runs can do, by Gradio.

Nothing here imports Gradio, TensorFlow or Keras before the command needs it.
"""

import html
import os
import pathlib
import signal
import socket
import sys
import tempfile

from zoo import _weights
from zoo._run_commands import quiet_start, write_file

_TITLE = 20  # most characters of a tab's title: a phone has no room for more
# Small pictures in squares, as large as fits; a grid that a phone has room for, with captions below, not upon it.
_CSS = """
.gradio-container { max-width: 60rem !important; margin: auto !important }
.pictures img, .example img, .given img { image-rendering: pixelated }
.given img { width: 100% !important; height: 100% !important; object-fit: contain }
.pictures .grid-container { grid-template: none / repeat(auto-fill, minmax(5.5rem, 1fr)); grid-auto-rows: auto }
.pictures .grid-wrap { min-height: 0; max-height: none; overflow: visible }
.pictures .thumbnail-item { aspect-ratio: auto; height: auto }
.pictures .thumbnail-item > img { height: auto }
.pictures .caption-label { display: block; position: static; max-width: 100%; border: 0; white-space: normal }
"""


def add_demo(commands):
    command = commands.add_parser("demo", help="a page to try models on, in a browser")
    command.add_argument("folders", metavar="RUN", nargs="*", help="runs (the weights that come with the zoo)")
    command.add_argument("--port", type=int, default=7860, help="7860; 0 for any that is free")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    command.set_defaults(run=_demo)


def _demo(options):
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported: it would say so to its makers
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ValueError("zoo demo needs Gradio: pip install gradio.") from None
    with _bound(options.host, options.port) as bound, tempfile.TemporaryDirectory(prefix="zoo-demo-") as folder:
        with quiet_start():
            import tensorflow as tf

            from zoo import _demo_tabs, _run
        tf.get_logger().setLevel("ERROR")  # it would warn that functions are traced often: once for each run
        tabs = _demo_tabs.tabs_of([_run.load(name) for name in options.folders or _weights.names()])
        if not options.folders:
            tabs = _demo_tabs.one_of_each(tabs)
        app = app_of(page_of(tabs, folder), folder)
        print("\n".join(f"{run.called}: {tab.name.lower()}" for tab, run in tabs))
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"http://{host}:{bound.getsockname()[1]} Stop with Ctrl-C.", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder goes, too
        _serve(app, bound)


def _bound(host, port):
    """A socket that listens: a port that is taken is told before anything is loaded."""
    if not 0 <= port <= 65535:
        raise ValueError(f"Expected a port from 0 to 65535. Received: --port {port}.")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = error.strerror.partition(" (")[0]  # what follows is the address again
        raise ValueError(f"Cannot listen on {host}:{port}: {why}. Take another --port.") from None


def _serve(app, bound):
    import uvicorn

    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[bound])


def app_of(page, folder):
    """The page as an application for uvicorn; all that it needs comes from itself.

    Args:
        page: what `page_of` gives.
        folder: where it keeps pictures.
    """
    import gradio
    from fastapi import FastAPI

    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return gradio.mount_gradio_app(
        FastAPI(openapi_url=None), page, "/", allowed_paths=[folder], footer_links=[], run_history=False,
        ssr_mode=False, theme=theme, css=_CSS,
    )  # fmt: skip


def page_of(tabs, folder):
    """The page, a `gradio.Blocks`.

    Args:
        tabs: `[(Tab, Run)]`.
        folder: where pictures are kept, those that are given as well.
    """
    import gradio

    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    names = [tab.name for tab, _ in tabs]
    with gradio.Blocks(title="zoo demo", analytics_enabled=False) as page:
        gradio.Markdown("# zoo demo")
        with gradio.Tabs():
            for tab, run in tabs:
                title = tab.name if names.count(tab.name) == 1 else f"{tab.name}: {pathlib.Path(run.called).name}"
                with gradio.Tab(title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"):
                    _add_tab(gradio, tab, run, pathlib.Path(folder, "examples", run.called.replace(":", "-")))
    return page


def _add_tab(gradio, tab, run, folder):
    asks = tab.asks(run)
    gradio.Markdown(f"{tab.does}\n\n{run.name}: `{run.called}`")
    with gradio.Row():
        with gradio.Column():
            switches, fields = {}, {}
            for name, kind in asks.items():
                if tab.may_lack and len(asks) > 1:
                    switches[name] = gradio.Checkbox(True, label=f"with {name}", container=False)
                fields[name] = _field(gradio, name, kind)
            button = gradio.Button(tab.name, variant="primary")
            _add_examples(gradio, tab, run, asks, fields, folder)
        with gradio.Column(elem_classes="answer"):
            shown = [_part(gradio, part) for part in tab.parts]

    def ask(*values):
        given = dict(zip(asks, values, strict=False))
        on = dict(zip(switches, values[len(asks) :], strict=True))
        parts = [gradio.update(value=part, visible=bool(part)) for part in answered(tab, run, given, on)]
        return parts if len(parts) > 1 else parts[0]

    events = [button.click, *(field.submit for field in fields.values() if hasattr(field, "submit"))]
    given = [*fields.values(), *switches.values()]
    gradio.on(events, ask, given, shown, scroll_to_output=True, api_visibility="private")


def answered(tab, run, given, switches):
    """The parts of a tab's answer in their order; a `gradio.Error` of one line on what cannot be answered.

    Args:
        tab, run: of the tab.
        given, switches: see `_demo_tabs.raw_values`.
    """
    import gradio

    from zoo._demo_tabs import levels, raw_values

    try:
        answer = tab.answer(run, raw_values(tab, tab.asks(run), given, switches))
    except (ValueError, OSError) as error:  # Gradio takes a message for HTML
        raise gradio.Error(html.escape(str(error)), print_exception=False) from None
    if "pictures" in answer:
        answer["pictures"] = [(levels(picture), caption) for picture, caption in answer["pictures"]]
    return [answer[part] for part in tab.parts]


def _field(gradio, name, kind):
    if kind == "image":
        field = gradio.Image(label=name, type="pil", sources=["upload", "clipboard"], height=220, elem_classes="given")
        field.preprocess = _one_line(field.preprocess, gradio.Error)
        return field
    if kind == "audio":
        return gradio.Audio(label=name, type="filepath", sources=["upload"])
    if kind == "video":  # a GIF, which Gradio's own field for clips does not take
        return gradio.File(label=name, type="filepath", file_types=[".gif"])
    if kind == "seed":
        return gradio.Number(0, label="first seed", precision=0)
    return gradio.Textbox(label=name, placeholder="0.5, 1, 2" if kind == "vector" else None, elem_classes="given")


def _one_line(read, error):
    """A field's function that reads a picture, which says in one line that a file is none."""
    from PIL.Image import DecompressionBombError

    def read_or_tell(payload):
        try:
            return read(payload)
        except (OSError, ValueError, SyntaxError, DecompressionBombError):
            raise error("This file is no picture that can be read.", print_exception=False) from None

    return read_or_tell


def _part(gradio, part):
    """What shows a part of an answer."""
    if part == "shares":
        return gradio.Label(label="how likely", num_top_classes=6)
    if part == "text":
        return gradio.Textbox(label="answer", lines=4, interactive=False)
    if part == "pictures":
        return gradio.Gallery(label="pictures", show_label=False, height="auto", format="png", object_fit="contain",
                              interactive=False, elem_classes="pictures")  # fmt: skip
    return gradio.Image(label="figure", show_label=False, buttons=[], interactive=False, format="png")


def _add_examples(gradio, tab, run, asks, fields, folder):
    """Rows of the test split to click on: the first input of each is shown, all are filled in."""
    from PIL import Image

    from zoo._demo_tabs import examples_of

    rows = examples_of(run, asks)
    for i, row in enumerate(rows):
        for name, cell in row.items():
            if isinstance(cell, bytes):
                row[name] = write_file(folder / f"{i}-{name}", cell)
    if not rows:
        return
    first = next(iter(asks))
    shown = gradio.Dataset(
        label="examples", components=[gradio.Image(visible=False) if asks[first] == "image" else "textbox"],
        samples=[[row[first]] for row in rows], type="index", elem_classes="example",
    )  # fmt: skip
    filled = [name for name in asks if name in rows[0]]

    def fill(i):
        values = [Image.open(rows[i][name]) if asks[name] == "image" else rows[i][name] for name in filled]
        return values if len(values) > 1 else values[0]

    shown.click(fill, shown, [fields[name] for name in filled], show_progress="hidden", api_visibility="private")

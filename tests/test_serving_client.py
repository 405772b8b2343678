"""The client: what it takes and gives is the same over REST and gRPC."""

import base64
import json
import pathlib

import models as examples
import numpy as np
import pytest
import tensorflow as tf
from running import running

from mmkeras.serving import Client, ServingError
from zoo._cli import main

PEM = pathlib.Path(__file__).parent / "serving" / "localhost.pem"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in ("named", "labels", "half_plus_two", "echo", "oddout"):
        getattr(examples, name)(folder / name / "1")
    row = ([None], tf.float32)

    @examples.function(model=row, signature=row, version=row, inputs=row)
    def reserved(model, signature, version, inputs):
        return {"y": model + 10 * signature + 100 * version + 1000 * inputs}

    examples.save(folder / "reserved" / "1", {"serving_default": reserved})
    return folder


def urls(server):
    return {"rest": f"http://127.0.0.1:{server.rest_port}", "grpc": f"grpc://127.0.0.1:{server.grpc_port}"}


@pytest.fixture(scope="module")
def server(folder):
    with running(folder, grpc_port=0) as server:
        yield server


@pytest.fixture(params=["rest", "grpc"])
def client(request, server):
    with Client(urls(server)[request.param]) as client:
        yield client


def test_lists_arrays_and_files_are_taken(client, tmp_path):
    (tmp_path / "picture").write_bytes(b"\x00 a picture\x00\x00")
    answer = client.predict("named", int_tensor=np.array([[1, 2]], "int32"), str_tensor=["ä"], float_tensor=[0.5],
                            dbl_tensor=np.array([0.25]))  # fmt: skip
    assert answer["int_tensor"].tolist() == [[1, 2]]
    assert answer["float_tensor"].tolist() == [0.5]
    assert answer["str_tensor"].tolist() == ["ä"]
    assert answer["str_tensor_bytes"].tolist() == ["ä".encode()]
    dtypes = {name: array.dtype.name for name, array in answer.items()}
    assert dtypes == {"int_tensor": "int32", "float_tensor": "float32", "dbl_tensor": "float64",
                      "str_tensor": "object", "str_tensor_bytes": "object"}  # fmt: skip
    echoed = client.predict("echo", "string_bytes", x=[tmp_path / "picture", "ä"])
    assert echoed["y_bytes"].tolist() == [b"\x00 a picture\x00\x00", "ä".encode()]  # no zero is dropped


@pytest.mark.parametrize(
    ("signature", "value", "expected"),
    [
        ("float32", [1, 2], [1.0, 2.0]),
        ("float32", [[0.1], [np.inf]], [[np.float32(0.1)], [np.inf]]),
        ("float32", np.arange(6, dtype="int64").reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),
        ("float64", 0.1, 0.1),
        ("int64", [2**62], [2**62]),
        ("int8", np.array([1, -2], "int64"), [1, -2]),
        ("uint8", 7, 7),
        ("bool", [True, False], [True, False]),
        ("string", [["a"], ["\x00"]], [["a"], ["\x00"]]),
        ("string", np.array(["a", "bc"]), ["a", "bc"]),
        ("float32", [], []),
        ("string", [], []),
    ],
)
def test_a_value_becomes_its_inputs_type(client, signature, value, expected):
    found = client.predict("echo", signature, x=value)["y"]
    assert found.tolist() == np.array(expected, found.dtype).tolist()
    assert found.dtype == (object if signature == "string" else signature)


@pytest.mark.parametrize(
    ("signature", "value", "message"),
    [
        ("int32", [2**31], "Expected numbers from -2147483648 to 2147483647 for `x`, which is int32"),
        ("uint8", [-1], "Expected numbers from 0 to 255"),
        ("float32", [[1], [1, 2]], "a value of one shape for `x`"),
        ("string", [["a"], ["b", "c"]], "a value of one shape for `x`"),
    ],
)
def test_a_value_that_its_type_does_not_hold_is_refused(client, signature, value, message):
    with pytest.raises(ValueError, match=message):
        client.predict("echo", signature, x=value)


@pytest.mark.parametrize(("signature", "value"), [("int32", [1.5]), ("float32", [True]), ("string", [1]),
                                                  ("float32", ["a"]), ("nobody", [1.0])])  # fmt: skip
def test_what_is_left_is_the_servers_to_refuse(client, signature, value):
    with pytest.raises(ServingError) as caught:
        client.predict("echo", signature, x=value)
    assert caught.value.code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")


def test_inputs_may_be_called_as_arguments_are(client):
    values = {name: [i] for i, name in enumerate(("model", "signature", "version", "inputs"), 1)}
    assert client.predict("reserved", inputs=values)["y"].tolist() == [4321.0]
    with pytest.raises(ValueError, match="inputs={'inputs': value}"):
        client.predict("reserved", inputs=[1.0])


def test_one_output_and_several_keep_their_names(client):
    assert set(client.predict("oddout", "uneven", x=[1.0, 2.0])) == {"a", "b"}
    assert client.predict("oddout", "scalar_out", x=[1.0, 2.0])["y"].tolist() == 3.0
    assert client.predict("oddout", "zero_out", x=[1.0])["y"].tolist() == []


def test_examples_are_classified_and_regressed(client):
    found = client.classify("labels", [{"x": [0.5, 0.25, 0.125]}], "serving_default")
    assert found == [[("car", 0.5), ("bike", 0.25), ("bus", 0.125)]]
    assert client.classify("labels", [{"x": np.array([0.5, 0.25, 0.125], "float32")}], "serving_default") == found
    assert client.regress("half_plus_two", [{"x": 1.0}, {"x": [np.float32(3)]}], "regress_x_to_y") == [2.5, 3.5]
    with pytest.raises(ServingError) as caught:
        client.regress("half_plus_two", [{"x": 1}], "regress_x_to_y", version=1)  # a whole number is another feature
    assert caught.value.code == "INVALID_ARGUMENT"


def test_signatures_and_states_read_alike_over_both(server):
    told = []
    for url in urls(server).values():
        with Client(url) as client:
            told.append((client.signatures("named"), client.status("named"), client.status("named", 1)))
            with pytest.raises(ServingError) as caught:
                client.status("named", 2)
            assert caught.value.code == "NOT_FOUND"
    assert told[0] == told[1]
    assert told[0][0]["two"]["inputs"]["str_tensor"]["dtype"] == "DT_STRING"
    assert told[0][1] == [
        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]  # fmt: skip


def test_signatures_are_asked_for_once(client, monkeypatch):
    asked, signatures = [], client._transport.signatures
    monkeypatch.setattr(client._transport, "signatures", lambda *of: asked.append(of) or signatures(*of))
    for _ in range(3):
        client.predict("half_plus_two", x=[[1.0]])
    client.predict("half_plus_two", "serving_default", 1, x=[[1.0]])
    assert asked == [("half_plus_two", None), ("half_plus_two", 1)]


def test_answers_may_be_large(client):
    assert client.predict("echo", x=np.ones(1_500_000, "float32"))["y"].sum() == 1_500_000


def test_a_model_or_a_server_that_is_not_there_is_told(client):
    with pytest.raises(ServingError) as caught:
        client.predict("nobody", x=[1.0])
    assert caught.value.code == "NOT_FOUND"
    for url in ("http://127.0.0.1:1", "grpc://127.0.0.1:1"):
        with Client(url) as nobody, pytest.raises(ConnectionError):
            nobody.status("named")


def test_a_server_with_tls_and_a_token_is_asked(folder):
    with running(folder, grpc_port=0, certificate=str(PEM), key=str(PEM), token="open sesame") as server:
        for url in (f"https://127.0.0.1:{server.rest_port}", f"grpcs://127.0.0.1:{server.grpc_port}"):
            with Client(url, token="open sesame", ca=PEM) as client:
                assert client.predict("half_plus_two", x=[[1]])["y"].tolist() == [[2.5]]
                assert client.status("half_plus_two")[0]["state"] == "AVAILABLE"
            with Client(url, token="wrong", ca=str(PEM)) as client, pytest.raises(ServingError) as caught:
                client.predict("half_plus_two", x=[[1.0]])
            assert caught.value.code == "UNAUTHENTICATED"
            with Client(url, token="open sesame") as client, pytest.raises(OSError, match="(?i)certificate"):
                client.status("half_plus_two")  # one that nobody we know vouches for
            with pytest.raises(ValueError, match="Cannot read the certificates in nowhere.pem"):
                Client(url, ca="nowhere.pem")


@pytest.mark.parametrize("url", ["127.0.0.1:8501", "ftp://127.0.0.1", "http://", ""])
def test_a_url_of_another_kind_is_refused(url):
    with pytest.raises(ValueError, match="Expected a URL such as"):
        Client(url)
    with pytest.raises(ValueError, match="Certificates are of https"):
        Client("grpc://127.0.0.1:8500", ca="x.pem")


# zoo client

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["rest", "grpc"])
def command(request, server, capsys):
    """What `zoo client URL …` prints, or says that is wrong."""

    def run(*arguments):
        code = main(["client", urls(server)[request.param], *map(str, arguments)])
        said = capsys.readouterr()
        return json.loads(said.out) if code == 0 else said.err

    return run


def test_a_row_is_asked_about_from_the_command_line(command, tmp_path):
    assert command("half_plus_two", "x=[1]") == {"y": [[2.5]]}
    assert command("half_plus_two", "x=[[1], [2.5]]", "--version", 1) == {"y": [[2.5], [3.25]]}
    found = command("named", "int_tensor=3", "str_tensor=a red circle", "float_tensor=0.5", "dbl_tensor=1e-3")
    assert found == {"int_tensor": 3, "str_tensor": "a red circle", "float_tensor": 0.5, "dbl_tensor": 0.001,
                     "str_tensor_bytes": str(pathlib.Path("str_tensor.bin"))}  # fmt: skip


def test_files_are_sent_and_written(command, tmp_path):
    (tmp_path / "dot.png").write_bytes(PNG)
    out = tmp_path / "pictures"
    found = command("echo", f"x={tmp_path / 'dot.png'}", "--signature", "string_bytes", "--out", out)
    assert found == {"y_bytes": str(out / "y.png")}
    found = command("echo", f'x=["{tmp_path / "dot.png"}", "b"]', "--signature", "string_bytes", "--out", out)
    assert found == {"y_bytes": [str(out / "y-0.png"), str(out / "y-1.bin")]}
    assert (out / "y-0.png").read_bytes() == PNG
    assert (out / "y-1.bin").read_bytes() == b"b"


def test_examples_are_asked_about_from_the_command_line(command):
    found = command("labels", "x=[0.5, 0.25, 0.125]", "--signature", "serving_default")
    assert found == [[["car", 0.5], ["bike", 0.25], ["bus", 0.125]]]
    assert command("half_plus_two", "x=1.0", "--signature", "regress_x_to_y") == [2.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["half_plus_two", "x"], "Expected NAME=VALUE, such as text='a red circle'. Received: 'x'."),
        (["half_plus_two", "x=a"], "Expected numbers as JSON, such as x='[0.5, 1]'. Received: 'a'."),
        (["half_plus_two", "z=1"], "`serving_default` has no input `z`. It has: x."),
        (["named", "--signature", "tow"], "`named` has no signature `tow`. Did you mean `two`? It has: "),
        (["nobody", "x=1"], "Servable not found for request: Latest(nobody)"),
        (["echo", "x=cat.png", "--signature", "string"], "There is no file cat.png."),
        (["echo", "x=1", "--version", "7"], "Servable not found for request: Specific(echo, 7)"),
        (["echo", "x=1", "--token-file", "nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_told(command, arguments, message):
    said = command(*arguments)
    assert said.startswith("zoo: error: ")
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "grpc://127.0.0.1:1", "http://nowhere.invalid"])
def test_a_server_that_is_not_there_is_told_in_a_line(url, capsys):
    assert main(["client", url, "half_plus_two", "x=1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"zoo: error: There is no server at {url}: ")
    assert said.count("\n") == 1

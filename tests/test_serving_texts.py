"""What the server reads and writes: JSON, tensors, configuration files, figures."""

import base64
import json
import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkeras.serving import Batching, ModelConfig, ServingError, config, json_text, tensors
from mmkeras.serving.metrics import Metrics

# JSON

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_json_is_read_as_the_standard_library_reads_it(value, indent, ascii):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    expected = json.loads(text)
    assert json_text.loads(text.encode()) == expected
    slowly = json_text._Reader(text).read()
    assert slowly == expected
    assert json.dumps(slowly) == json.dumps(expected)  # 1 is not 1.0 and not true


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=30) | st.text('[]{}",:0123456789.eE-+ntruefalsINy\\ \n', max_size=30).map(str.encode))
def test_whatever_comes_is_read_or_refused(body):
    try:
        json_text.loads(body)
    except ServingError as error:
        refused = error
    else:
        return
    assert refused.code == "INVALID_ARGUMENT"
    assert refused.message.startswith("JSON Parse error: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1 2]", "Missing a comma or ']' after an array element. at offset: 3"),
        ('{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        ('{"a": 1 "b"', "Missing a comma or '}' after an object member. at offset: 8"),
        ("{1: 2}", "Missing a name for object member. at offset: 1"),
        ("[1.]", "Miss fraction part in number. at offset: 2"),
        ("[1e]", "Miss exponent in number. at offset: 2"),
        ('["a', "Missing a closing quotation mark in string. at offset: 1"),
        ('["\\x"]', "Invalid escape character in string. at offset: 1"),
        ('["\\u12g4"]', "Incorrect hex digit after \\u escape in string. at offset: 1"),
        ('["\\ud800"]', "The surrogate pair in string is invalid. at offset: 1"),
        ('["ä", 1e999]', "Number too big to be stored in double. at offset: 7"),
        ("[" * 65 + "]" * 65, "Nested more deeply than 64 levels. at offset: 64"),
        ("  ", "Invalid value. at offset: 2"),
    ],
)
def test_faults_are_told_with_their_offset(text, message):
    with pytest.raises(ServingError) as caught:
        json_text.loads(text.encode())
    assert caught.value.message == f"JSON Parse error: {message}"
    assert caught.value.http_status == 400


def test_more_than_json_is_read():
    assert json_text.loads(b'\xef\xbb\xbf {"a": [Inf, -Infinity], "a": 2} trailing') == {"a": [math.inf, -math.inf]}
    assert json_text.loads(b'[{"x":1,"x" :2}]') == [{"x": 1}]
    assert json_text.loads(b'["[[[", ' + b'"]",' * 80 + b"1]")[0] == "[[["
    assert math.isnan(json_text.loads(b"[NaN]")[0])
    with pytest.raises(ServingError, match="Invalid encoding"):
        json_text.loads(b'["\xff"]')


def test_what_is_not_finite_is_written_bare():
    value = {"outputs": {"a": np.array([1, np.inf], "float32"), "b": np.array([[2]]), "c": ["ä"]}}
    assert json_text.dumps(value).decode() == '{"outputs": {"a": [1.0, Infinity], "b": [[2]], "c": ["ä"]}}'
    assert json_text.dumps({"x": np.array([0.1, 5], "float32")}) == b'{"x":[0.1,5.0]}'
    rows = [{"y": np.float32(1.5), "n": 1}, {"y": np.float32(np.nan), "n": np.int64(2)}]
    assert json_text.dumps(rows) == b'[{"y": 1.5, "n": 1}, {"y": NaN, "n": 2}]'
    assert json_text.dumps([[("a", math.nan), ("b", 0.5)]]) == b'[[["a", NaN], ["b", 0.5]]]'


# Tensors

DTYPES = ["float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "uint64", "bool", "string"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 2, 2), (2, 0)])
def test_rows_and_columns_are_read_back(dtype, shape):
    random = np.random.default_rng(0)
    array = random.integers(0, 100, shape)
    array = (array / 3).astype(dtype) if dtype[0] == "f" else array % 2 > 0 if dtype == "bool" else array
    values = np.vectorize(str, otypes=[object])(array).tolist() if dtype == "string" else array.tolist()
    expected = np.vectorize(lambda v: str(v).encode(), otypes=[object])(array) if dtype == "string" else array
    by_rows, is_rows = tensors.read_predict({"instances": values}, {"x": dtype})
    by_columns, is_columns = tensors.read_predict({"inputs": {"x": values}}, {"x": dtype})
    assert (is_rows, is_columns) == (True, False)
    for found in (by_rows["x"], by_columns["x"]):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == (object if dtype == "string" else dtype)
    written = json.loads(json_text.dumps(tensors.write_predict({"x": expected}, True)))["predictions"]
    assert (np.array(written, dtype).tolist() if dtype == "float32" else written) == values


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([1.0, True], "float32", "JSON Value: true Type: True is not of expected type: float"),
        ([[1, 2], [3, 2**31]], "int32", "JSON Value: 2147483648 Type: Number is not of expected type: int32"),
        ([1, 2.0], "int64", "JSON Value: 2.0 Type: Number is not of expected type: int64"),
        ([[1, 2], [3]], "float32", "Expecting shape [2] but got: [1]"),
        ([["a"], [1]], "string", "JSON Value: 1 Type: Number is not of expected type: string"),
        ([None], "float32", "JSON Value: null Type: Null is not of expected type: float"),
    ],
)
def test_a_value_of_another_type_is_named_whatever_stands_beside_it(values, dtype, message):
    with pytest.raises(ServingError) as caught:
        tensors.read_predict({"instances": values}, {"x": dtype})
    assert caught.value.message.endswith(message)


def test_errors_repeat_little_of_a_request():
    with pytest.raises(ServingError) as caught:
        tensors.read_predict({"instances": ["secret" * 1000]}, {"x": "float32"})
    assert len(caught.value.message) < 400


def test_text_that_is_none_is_not_written():
    with pytest.raises(ServingError, match="holds bytes that are no text"):
        tensors.write_predict({"y": np.array([b"\xff"], object)}, True)
    written = tensors.write_predict({"y_bytes": np.array([b"\xff"], object)}, True)
    assert written == {"predictions": [{"b64": base64.b64encode(b"\xff").decode()}]}


# Configuration


def test_configuration_files_are_read(tmp_path):
    (tmp_path / "models.config").write_text(
        'model_config_list { config { name: "a" base_path: "/m/a" model_platform: "tensorflow"\n'
        "  model_version_policy { specific { versions: 2 versions: 5 } }\n"
        '  version_labels { key: "stable" value: 2 } } config { name: "b" base_path: "/m/b" } }'
    )
    a, b = config.read_models(tmp_path / "models.config")
    assert a == ModelConfig("a", "/m/a", ("specific", (2, 5)), {"stable": 2})
    assert b == ModelConfig("b", "/m/b", ("latest", 1))
    (tmp_path / "batching.txt").write_text(
        "max_batch_size { value: 32 } batch_timeout_micros { value: 500 } thread_pool_name { value: 'x' }\n"
        "allowed_batch_sizes: 8 allowed_batch_sizes: 32"
    )
    found = config.read_batching(tmp_path / "batching.txt")
    assert found == Batching(32, 500, 10, os.cpu_count(), (8, 32))
    (tmp_path / "batching.txt").write_text("batch_timeout_micros { value: 500 }")
    assert config.read_batching(tmp_path / "batching.txt") == Batching(1000, 500, 10, os.cpu_count())
    split = "max_batch_size { value: 32 } max_execution_batch_size { value: 8 } allowed_batch_sizes: 8"
    (tmp_path / "batching.txt").write_text(f"{split} enable_large_batch_splitting {{ value: true }}")
    assert config.read_batching(tmp_path / "batching.txt").most_at_once == 8
    (tmp_path / "monitoring.config").write_text("prometheus_config { enable: true }")
    assert config.read_monitoring(tmp_path / "monitoring.config") == "/monitoring/prometheus/metrics"
    for text in ("max_batch_size: 3", "allowed_batch_sizes: 8 allowed_batch_sizes: 4", split):
        (tmp_path / "batching.txt").write_text(text)
        with pytest.raises(ValueError, match="cannot be read|Expected allowed_batch_sizes to increase"):
            config.read_batching(tmp_path / "batching.txt")


def test_figures_are_counted_in_buckets():
    metrics = Metrics()
    for micros in (5.0, 15.0, 1e12):
        metrics.request('a"b', "predict", "OK", micros)
    lines = metrics.text().splitlines()
    assert ':tensorflow:serving:request_count{model_name="a\\"b",status="OK"} 3' in lines
    buckets = [line for line in lines if "request_latency_bucket" in line]
    assert [int(line.rpartition(" ")[2]) for line in (buckets[0], buckets[1], buckets[-2], buckets[-1])] == [1, 2, 2, 3]
    assert 'le="18"' in buckets[1]

"""The small models that TensorFlow Serving's own tests talk to.

`python tests/serving/models.py FOLDER` writes them with the configuration that the cases want, and says how a server is
started on them and asked.
"""

import pathlib
import sys

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

ECHOED = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
          "string", "half", "bfloat16")  # fmt: skip
METHODS = {"predict", "classify", "regress"}


def function(*specs, **named):
    """A tf.function of these inputs, `name=(shape, dtype)`."""
    signature = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in named.items()]
    return tf.function(input_signature=[*specs, *signature])


def save(path, signatures, methods=None, defaults=None, module=None):
    """Writes a SavedModel; `methods` says which signatures are for classify and regress.

    Keras and TensorFlow 2 write every signature as one for predict: it is changed in the file.
    """
    module = module or tf.Module()
    module.functions = signatures
    tf.saved_model.save(module, str(path), signatures=signatures)
    file = pathlib.Path(path, "saved_model.pb")
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for key, signature in saved.meta_graphs[0].signature_def.items():
        verb = (methods or {}).get(key)
        if verb:
            signature.method_name = f"tensorflow/serving/{verb}"
        for name, value in (defaults or {}).get(key, {}).items():
            signature.defaults[name].CopyFrom(tf.make_tensor_proto(value))
    file.write_bytes(saved.SerializeToString())


def feature(examples, name, size=1, default=None):
    spec = tf.io.FixedLenFeature([size], tf.float32, None if default is None else [default] * size)
    return tf.io.parse_example(examples, {name: spec})[name]


def half_plus_two(path, offset=2.0, regress_key=None):
    module = tf.Module()
    module.a, module.b = tf.Variable(0.5), tf.Variable(offset)

    @function(x=([None, 1], tf.float32))
    def serving_default(x):
        return {"y": module.a * x + module.b}

    @function(inputs=([None], tf.string))
    def regress_x_to_y(inputs):
        return {"outputs": module.a * feature(inputs, "x") + module.b}

    @function(inputs=([None], tf.string))
    def regress_x_to_y2(inputs):
        return {"outputs": module.a * feature(inputs, "x") + module.b + 1.0}

    @function(inputs=([None, 1], tf.float32))
    def regress_x2_to_y3(inputs):
        return {"outputs": module.a * inputs + module.b + 1.0}

    @function(inputs=([None], tf.string))
    def classify_x_to_y(inputs):
        return {"scores": module.a * feature(inputs, "x") + module.b}

    @function(inputs=([None, 1], tf.float32))
    def classify_x2_to_y3(inputs):
        return {"scores": module.a * inputs + module.b + 1.0}

    signatures = {
        "serving_default": serving_default, "regress_x_to_y": regress_x_to_y, "regress_x_to_y2": regress_x_to_y2,
        "regress_x2_to_y3": regress_x2_to_y3, "classify_x_to_y": classify_x_to_y,
        "classify_x2_to_y3": classify_x2_to_y3,
    }  # fmt: skip
    if regress_key:
        signatures[regress_key] = regress_x_to_y
    methods = {key: "regress" if "regress" in key else "classify" for key in signatures if key != "serving_default"}
    save(path, signatures, methods, module=module)


def versioned(path, version):
    @function(x=([None], tf.float32))
    def serving_default(x):
        return {"y": 0 * x + version}

    save(path, {"serving_default": serving_default})


def echo(path):
    def identity(dtype, output="y"):
        @function(x=(None, dtype))
        def same(x):
            return {output: tf.identity(x)}

        return same

    signatures = {dtype: identity(dtype) for dtype in ECHOED}
    signatures["string_bytes"] = identity("string", "y_bytes")
    signatures["float_bytes"] = identity("float32", "y_bytes")
    save(path, {"serving_default": signatures["float32"], **signatures})


def named(path):
    kinds = {"int_tensor": tf.int32, "str_tensor": tf.string, "float_tensor": tf.float32, "dbl_tensor": tf.float64}

    @function(**{name: (None, dtype) for name, dtype in kinds.items()})
    def serving_default(int_tensor, str_tensor, float_tensor, dbl_tensor):
        same = {"int_tensor": int_tensor, "str_tensor": str_tensor, "float_tensor": float_tensor}
        same = {**same, "dbl_tensor": dbl_tensor, "str_tensor_bytes": str_tensor}
        return {name: tf.identity(value) for name, value in same.items()}

    @function(int_tensor=(None, tf.int32), str_tensor=(None, tf.string))
    def two(int_tensor, str_tensor):
        return {"int_tensor": tf.identity(int_tensor), "str_tensor": tf.identity(str_tensor)}

    save(path, {"serving_default": serving_default, "two": two})


def oddout(path):
    answers = {
        "serving_default": lambda x: {"y": tf.identity(x)},
        "scalar_out": lambda x: {"y": tf.reduce_sum(x)},
        "uneven": lambda x: {"a": tf.identity(x), "b": x[:1]},
        "complex_out": lambda x: {"y": tf.complex(x, x)},
        "half_out": lambda x: {"y": tf.cast(x, tf.half)},
        "zero_out": lambda x: {"y": x[:0]},
        "two_zero": lambda x: {"a": x[:0], "b": x[:0]},
    }
    save(path, {key: function(x=([None], tf.float32))(answer) for key, answer in answers.items()})


def labels(path):
    names = tf.constant([["car", "bike", "bus"]])

    def both(inputs, classes=3, shown=None):
        x = feature(inputs, "x", 3)
        found = {"classes": tf.tile(names[:, :classes], [tf.shape(x)[0], 1]), "scores": x}
        return {name: found[name] for name in shown or found}

    answers = {
        "serving_default": lambda inputs: both(inputs),
        "classes_only": lambda inputs: both(inputs, shown=["classes"]),
        "mismatch": lambda inputs: both(inputs, classes=2),
        "rank1": lambda inputs: {"scores": feature(inputs, "x", 3)[:, 0]},
        "wrong_batch": lambda inputs: {"scores": feature(inputs, "x", 3)[:1]},
        "int_scores": lambda inputs: {"scores": tf.cast(feature(inputs, "x", 3), tf.int32)},
    }
    signatures = {key: function(inputs=([None], tf.string))(answer) for key, answer in answers.items()}
    save(path, signatures, dict.fromkeys(answers, "classify"))


def counter(path):
    module = tf.Module()
    module.count = tf.Variable(0.0)
    save(path, {
        "get_counter": tf.function(lambda: {"output": module.count.read_value()}, input_signature=[]),
        "incr_counter": tf.function(lambda: {"output": module.count.assign_add(1.0)}, input_signature=[]),
        "reset_counter": tf.function(lambda: {"output": module.count.assign(0.0)}, input_signature=[]),
        "incr_counter_by": function(delta=([], tf.float32))(lambda delta: {"output": module.count.assign_add(delta)}),
    }, module=module)  # fmt: skip


def with_default(path):
    @function(x=([None], tf.float32), scale=([], tf.float32))
    def serving_default(x, scale):
        return {"y": x * scale}

    save(path, {"serving_default": serving_default}, defaults={"serving_default": {"scale": 2.0}})


def slow(path):
    @function(n=([], tf.int32))
    def serving_default(n):
        return {"y": tf.while_loop(lambda i: i < n, lambda i: (i + 1,), (tf.constant(0),))[0]}

    save(path, {"serving_default": serving_default})


def build(folder):
    """Writes all of them below a folder."""
    folder = pathlib.Path(folder)
    half_plus_two(folder / "half_plus_two" / "00000123")
    half_plus_two(folder / "half_plus_two" / "00000124")
    half_plus_two(folder / "half_plus_three" / "00000123", 3.0, "tensorflow/serving/regress")
    for version in (1, 2, 3):
        versioned(folder / "versioned" / str(version), version)
    for make in (echo, named, oddout, labels, counter, with_default, slow):
        make(folder / make.__name__ / "1")
    (folder / "bad" / "1").mkdir(parents=True)


_VERSIONS = {"half_plus_two": (123, 124), "versioned": (1, 2, 3)}  # served at once; of the others the latest
_LABELS = {"half_plus_two": {"stable": 123, "canary": 124}}
_COMMANDS = """
{folder} holds the models and models.config. zoo serve is started so:

    zoo serve --config {folder}/models.config --load-retries 0

and the original so (it may refuse to start with the model `bad`, which cannot be loaded: take it out of models.config
then, and leave the case status.failed_load aside):

    docker run --rm -p 8500:8500 -p 8501:8501 -v {folder}:{folder}:ro tensorflow/serving \\
        --model_config_file={folder}/models.config --max_num_load_retries=0

Either is asked so:

    ZOO_CONFORMANCE_URL=http://127.0.0.1:8501 ZOO_CONFORMANCE_GRPC=127.0.0.1:8500 pytest -n0 tests/test_conformance.py
"""


def config(folder):
    """The text of a `models.config` of all models that `build` wrote below a folder."""
    folder, models = pathlib.Path(folder).resolve(), []
    for name in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        versions = "".join(f" versions: {number}" for number in _VERSIONS.get(name, ()))
        policy = f" model_version_policy {{ specific {{{versions} }} }}" if versions else ""
        labels = "".join(
            f' version_labels {{ key: "{label}" value: {number} }}' for label, number in _LABELS.get(name, {}).items()
        )
        base = f'name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow"'
        models.append(f"  config {{ {base}{policy}{labels} }}\n")
    return f"model_config_list {{\n{''.join(models)}}}\n"


def main(folder):
    build(folder)
    pathlib.Path(folder, "models.config").write_text(config(folder))
    print(_COMMANDS.format(folder=pathlib.Path(folder).resolve()))


if __name__ == "__main__":
    main(sys.argv[1])

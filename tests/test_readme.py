"""The tables of the README are made from the code. `python tests/test_readme.py` writes them anew."""

import inspect
import json
import pathlib
import re

import zoo
from zoo import _registry, _reproduce, _weights, protocols

README = pathlib.Path(__file__).parents[1] / "README.md"


def models_table():
    rows = ["| model | what it is | presets | parameters of `base` |", "|---|---|---|---|"]
    for name in zoo.names():
        module = _registry.module(name)
        title = module.__doc__.strip().splitlines()[0]
        size = f"{zoo.build(name).count_params():,}"
        rows.append(f"| `{name}` | {title} | {', '.join(module.PRESETS)} | {size} |")
    return "\n".join(rows)


def fusions_table():
    from mmkeras import fusion

    rows = ["| fusion | kind | what it computes |", "|---|---|---|"]
    tables = {
        "feature": fusion.FEATURE_FUSIONS, "token": fusion.TOKEN_FUSIONS, "decision": fusion.DECISION_FUSIONS,
        "staged": fusion.STAGED_FUSIONS,
    }  # fmt: skip
    for kind, table in tables.items():
        for name, layer in table.items():
            rows.append(f"| `{name}` | {kind} | {inspect.getdoc(layer).splitlines()[0]} |")
    return "\n".join(rows)


def results_table():
    shipped = protocols.shipped()
    parts = [_reproduce.table(shipped.values())]
    for name, result in shipped.items():
        details = getattr(protocols.module(name), "details", None)
        if details:
            parts.append(f"`{name}`. {details.__doc__}\n\n{details(result['measured'])}")
    return "\n\n".join(parts)


def weights_table():
    rows = ["| name | measured on its test split | found | a control | parameters | MB |", "|---|---|---|---|---|---|"]
    for name in _weights.names():
        folder = _weights.folder_of(name)
        (title, metric), (control, other) = REACHED[name]
        found = json.loads((folder / "metrics/test.json").read_text(encoding="utf-8"))
        chance = f"{found[control][other]:.3f}" if control else "—"
        megabytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        size = f"{zoo.load(name).model.count_params():,}"
        rows.append(
            f"| `{name}` | {title}: {metric} | {found[title][metric]:.3f} | {chance} | {size} | {megabytes:.2f} |"
        )
    return "\n".join(rows)


REACHED = {
    "autoencoder:scenes": (("image from text", "mse"), ("image from text", "mse_of_mean")),
    "captioner:scenes": (("text from image", "exact_match"), ("given another row", "exact_match")),
    "conditional_gan:scenes": (("over the retriever", "r_precision"), ("over the retriever", "chance")),
    "dual_encoder:scenes": (("image -> text", "recall@1"), (None, None)),
    "fusion_classifier:scenes": (("image", "accuracy"), ("majority label", "accuracy")),
    "vqa:scenes": (("image and question", "accuracy"), ("most frequent answer to the question", "accuracy")),
}
TABLES = {"models": models_table, "fusions": fusions_table, "results": results_table, "weights": weights_table}


def with_tables(text):
    """The README's text with every table between its marks made anew."""
    for name, table in TABLES.items():
        marks = rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)"
        text, count = re.subn(marks, lambda m, t=table: m[1] + t() + m[2], text, flags=re.DOTALL)
        assert count == 1, f"the README has no marks for the table of {name}"
    return text


def test_tables_are_current():
    text = README.read_text(encoding="utf-8")
    assert text == with_tables(text), "run `python tests/test_readme.py`"


def test_every_file_the_readme_shows_is_there():
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)|src=\"([^\"]+)\"", text):
        path = next(filter(None, target))
        assert (README.parent / path).exists(), path


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")

"""Our docstrings as Griffe reads them: `a, b: what they are` is one entry, examples are indented below a heading."""

import re
import textwrap

import griffe

EXAMPLE = re.compile(r"^(?:Example:\n\n)?(>>> .*(?:\n.+)*)", re.MULTILINE)
SEVERAL = re.compile(r"^    \*{0,2}\w+(?:, \*{0,2}\w+)+:", re.MULTILINE)


class Docstrings(griffe.Extension):
    def on_instance(self, *, obj, **_):
        if obj.docstring:
            text = EXAMPLE.sub(lambda found: "Examples:\n" + textwrap.indent(found[1], "    "), obj.docstring.value)
            # Up to the first space Griffe takes it for the name, so that these are no-break spaces.
            obj.docstring.value = SEVERAL.sub(lambda found: "    " + found[0].strip().replace(" ", "\xa0"), text)

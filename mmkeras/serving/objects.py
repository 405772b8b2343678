"""Texts and bytes in arrays."""

import numpy as np


def objects(value):
    """Nested lists of texts or bytes as an array of objects; NumPy's own types would drop zero bytes at the end.

    Raises:
        ValueError: if the lists differ in length.

    Example:

    >>> objects([[b"a\\x00"], ["b"]]).tolist()
    [[b'a\\x00'], ['b']]
    """
    leaves, shape = [value], []
    while leaves and all(isinstance(one, (list, tuple)) for one in leaves):
        shape.append(len(leaves[0]))
        if any(len(one) != shape[-1] for one in leaves):
            raise ValueError(f"Expected lists of one length. Received lengths {sorted({len(one) for one in leaves})}.")
        leaves = [item for one in leaves for item in one]
    array = np.empty(len(leaves), object)
    array[:] = leaves
    return array.reshape(shape)

"""Trainings of protocols, which may be interrupted."""

import pathlib

import zoo


def trained(name, data, out, **options):
    """The run in `out`: trained, or gone on with where it was interrupted."""
    resume = pathlib.Path(out, "config.json").exists()
    given = {} if resume else {"data": data, **options}
    return zoo.train(name, out=out, resume=resume, verbose=2, **given)

"""Every class a saved model may hold, registered with Keras by being imported.

Where Keras runs on another backend than TensorFlow, the layers for bytes and strings stay out: they need it.
"""

import keras

from mmkeras import decoders, encoders, fusion, layers, losses, training  # noqa: F401

if keras.backend.backend() == "tensorflow":
    from mmkeras.layers import raw_readers  # noqa: F401
    from mmkeras.training import adversarial_text, steps, tensorflow_optimizers  # noqa: F401

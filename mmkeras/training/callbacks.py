"""What happens at the end of an epoch besides training."""

import keras


class AfterEpoch(keras.callbacks.Callback):
    """Calls `function(epoch, logs)` after every epoch, epochs counted from one."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_epoch_end(self, epoch, logs=None):
        self.function(epoch + 1, dict(logs or {}))

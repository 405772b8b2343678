"""The size of a spectrogram, on any backend: `DecodeAudio` makes it, encoders and decoders are built for it."""

import math


def frame_size(rate):
    """Samples a frame at a rate: about 32 milliseconds, a power of two; frames overlap by half."""
    return 2 ** round(math.log2(0.032 * rate))


def num_frames(rate, seconds):
    """Frames of a sound of so many seconds.

    Example:

    >>> num_frames(8000, 1.0)
    63
    """
    return -(-max(round(rate * seconds), 1) // (frame_size(rate) // 2))

"""What holds for all tests."""

import signal

from hypothesis import settings

# Whoever is started in the background has Ctrl-C ignored, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes no example wrong.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

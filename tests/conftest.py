"""What holds for all tests."""

import signal

# Whoever is started in the background has Ctrl-C ignored, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

"""How models are made: on a workstation or by ``calibrate``, never in the running daemon."""

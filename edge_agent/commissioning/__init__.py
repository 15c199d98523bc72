"""What a line engineer does once per meter and once per sensor, and what the machine says to it."""

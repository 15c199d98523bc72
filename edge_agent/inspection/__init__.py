"""What `check` looks at: the wires, the eyes, the outputs, the brokers and this machine."""

"""edge-agent: one daemon per production line."""

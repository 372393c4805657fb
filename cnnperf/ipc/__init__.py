"""Communication between a parent and its worker processes: JSON lines over pipes."""

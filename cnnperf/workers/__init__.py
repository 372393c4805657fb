"""The children's side: what processes run that the parent starts by `python -m`; nothing outside imports it."""

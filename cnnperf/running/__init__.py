"""The parent's side of a run: preflight, then one fresh process per task."""

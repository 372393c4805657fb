"""The parent's side of a run and of a self-test: preflight, then one fresh process per task or claim."""

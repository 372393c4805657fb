"""The machine: its description, the limits of this process, and disturbances."""

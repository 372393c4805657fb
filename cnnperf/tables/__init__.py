"""From records to tables: raw SI values in rows, with columns that describe these."""

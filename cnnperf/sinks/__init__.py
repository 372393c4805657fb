"""Stores that runs are exported to. One file per store; `store(report: Report, out: Path)`.

`store` writes the tables and the samples of a report into a folder, from records and after a run, never during it. Its
package is imported only there; it raises UsageError if that is not installed, and OSError.
"""

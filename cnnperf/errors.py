"""The faults that reach a user bare, each one sentence: where, what, got, cure."""


class CnnperfError(Exception):
    """A fault the user can mend; `exit_code` is what a command ends with."""

    exit_code = 2


class UsageError(CnnperfError):
    """The request cannot be carried out as written; nothing was measured."""


class SuiteError(UsageError):
    """A suite file that is missing, malformed or contradictory."""


class DataError(UsageError):
    """A data file that is missing, unreadable or not what its checksum says."""


class StoreError(CnnperfError):
    """A run folder that cannot be read or written."""


class RunError(CnnperfError):
    """A fault in mid-run, such as a full disk; what was recorded before it stays."""

    exit_code = 1


class StageError(CnnperfError):
    """A stage that cannot give its result; it ends the task as failed, not the run."""

    exit_code = 1


class DeviceError(CnnperfError):
    """A device that this machine does not have; its tasks are skipped with this reason."""


class CnnperfWarning(UserWarning):
    """A thing the user should know that did not stop the work."""

"""What a user can fix.  The command line prints one line for these and exits 2; anything else is our bug.

Every message says what was found, what was expected and what to do next.
"""


class DrapeError(Exception):
    """Base of all errors whose cure is in the user's hands."""


class ConfigError(DrapeError):
    """A setting, preset or combination of settings that cannot work."""


class DataError(DrapeError):
    """A file or folder of a data set that is missing, unreadable or inconsistent."""


class CheckpointError(DrapeError):
    """Weights or a checkpoint that cannot be read, or do not fit the net they are loaded into."""


class TrainingError(DrapeError):
    """A run that cannot go on, such as one whose loss is no longer a number."""

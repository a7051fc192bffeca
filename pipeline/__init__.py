"""Restores faces in archives of photographs with DifFace."""


class Refusal(Exception):
    """What was asked for can not be done: one sentence says what was wanted, what came, and what to do.

    A command that meets one prints it and exits with its code.
    """

    exit_code = 2

"""The commands: what their flags are, what they print and write. The top of the house.

One file a command (train, evaluate, sample, score, diagnose, plots, datasets), each with the flags
it defines, what it does, and `main`, its entry. Flags are defined when a command starts, never by
an import.
"""

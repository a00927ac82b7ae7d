"""The verbs of the command line, a module each.

A module here is a verb: its docstring is the help, `add_arguments(parser)` declares its options and `run(args)` does
the work and returns nothing, or an exit status.
"""

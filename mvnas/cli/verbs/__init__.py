"""One file a verb of the command line: a docstring that says what it does, `options` that it takes, and `run`.

A file `foo.py` here is `mvnas foo`. It has `FIGURES = False` where it has nothing to print as `--json`. Slow packages are imported
inside functions, so that `mvnas --help` stays fast; all is printed by `mvnas.cli.output.print`.
"""

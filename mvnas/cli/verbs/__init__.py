"""The verbs of the command line, one file each: `foo.py` is `mvnas foo`.

Such a file has

- a docstring whose first line is the verb's help,
- `options(to: argparse.ArgumentParser) -> None`, which adds its options; `--trust` and `--json` are added to all,
- `run(args: argparse.Namespace) -> None`, which does the work, prints by `mvnas.cli.output.print`, and raises an
  `MvnasError` on a mistake of the user's,
- `FIGURES = False` if it has no `--json`.

It imports slow packages such as torch inside of functions, so that `mvnas --help` stays fast.
"""

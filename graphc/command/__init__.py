"""The `graphc` command; `python -m graphc` is the same program."""

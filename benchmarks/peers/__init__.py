"""What do other libraries take for the same? One small program for each, in their environment.

These modules run in ``.venv-peers`` and import nothing of moralscope.
"""

"""How sure are we? Tables in, gates and claims out; numpy, scipy and polars only.

``judge_gates`` says whether the tables can carry a claim at all, ``make_claims`` says what they
carry and gives every claim a verdict. The statistics are plain functions on arrays and know
nothing of tables.
"""

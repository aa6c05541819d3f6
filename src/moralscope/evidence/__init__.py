"""How sure are we? Gates, units, tests, claims: tables in, claims out."""

"""Run it all: study file, plan, content-addressed stages, run directory."""

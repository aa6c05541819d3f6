"""How is each stage computed? One short function per kind of stage, one module per subject."""

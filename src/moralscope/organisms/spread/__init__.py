"""How far does a narrow lesson spread? Paired continuations, coherence, judges, quadrants."""

"""What are agents asked? Scenes put into words: texts, wordings, families, frames, whole sets."""

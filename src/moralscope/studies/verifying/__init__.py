"""Is a run what it says it is? Its files, its completeness, its numbers and its claims."""

"""What do we all speak of? Errors, decisions, sites, agents, tables, files, stages."""

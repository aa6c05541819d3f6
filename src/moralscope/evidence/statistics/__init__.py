"""How surprising, how large, how sure? Plain functions on arrays that know nothing of tables."""

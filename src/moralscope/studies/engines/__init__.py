"""Where are stages computed? Here, in processes of this machine, or on a Ray cluster.

All engines compute the same stages into the same cache; they differ in who computes them. One
driver (``driving``) says which stage is next; a pool (``here``, ``processes``, ``on_ray``) has it
computed by ``computing``.
"""

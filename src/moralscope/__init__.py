"""What did fine-tuning change inside an agent, and which findings would survive a sceptic?

The top package imports nothing heavy. Import the package that answers your question:
``moralscope.games``, ``moralscope.models``, ``moralscope.mechanisms``, ``moralscope.evidence``.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]

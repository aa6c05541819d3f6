import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "models"))  # tiny decoders
sys.path.insert(0, str(TESTS.parent))  # the package benchmarks

"""What is read off ensembles."""

from jaxsde.analysis.compare import Comparison as Comparison
from jaxsde.analysis.compare import Difference as Difference
from jaxsde.analysis.compare import compare as compare

"""What is read off ensembles."""

from jaxsde.analysis.compare import Comparison as Comparison
from jaxsde.analysis.compare import Difference as Difference
from jaxsde.analysis.compare import compare as compare
from jaxsde.analysis.compare import with_error as with_error
from jaxsde.analysis.first_passage import Curve as Curve
from jaxsde.analysis.first_passage import FirstPassageTimes as FirstPassageTimes
from jaxsde.analysis.first_passage import first_passage as first_passage

"""What is minimised: deterministic functions of a point."""

from jaxsde.problems._problem import Problem as Problem
from jaxsde.problems.landscapes import DoubleWell as DoubleWell
from jaxsde.problems.landscapes import EmbeddedSaddle as EmbeddedSaddle
from jaxsde.problems.landscapes import Rosenbrock as Rosenbrock
from jaxsde.problems.named import NAMED as NAMED
from jaxsde.problems.named import Named as Named
from jaxsde.problems.named import named as named
from jaxsde.problems.quadratic import Quadratic as Quadratic
from jaxsde.problems.regression import LogisticRegression as LogisticRegression
from jaxsde.problems.regression import breast_cancer as breast_cancer

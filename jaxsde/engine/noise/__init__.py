"""Counter-based noise: every value is a pure function of (key, step, slot, path, coordinate).

The layout is frozen. With Threefry-2x32 of 20 rounds (Salmon et al. 2011), `step // 2 = j`,

    K = Threefry(key, (j, slot)),    (w₀, w₁) = Threefry(K, (path, c)),

where `slot` counts the declared draws in leaf order and `c` the draw's coordinates in C order.
`path` is the global index, so the words depend on nothing else: not on chunks, devices, records,
the number of paths, or where a run was resumed. What an even step 2j and an odd step 2j + 1 take
from the block is written in each law. Draws before the first step use j = 2³² - 1.
"""

from jaxsde.engine.noise._cipher import key_words as key_words
from jaxsde.engine.noise._cipher import threefry as threefry
from jaxsde.engine.noise._draws import BEFORE_FIRST_STEP as BEFORE_FIRST_STEP
from jaxsde.engine.noise._draws import Draw as Draw
from jaxsde.engine.noise._draws import blocks as blocks
from jaxsde.engine.noise._draws import is_draw as is_draw
from jaxsde.engine.noise._draws import structure as structure
from jaxsde.engine.noise._draws import values as values
from jaxsde.engine.noise._laws import Block as Block
from jaxsde.engine.noise._laws import Index as Index
from jaxsde.engine.noise._laws import Law as Law
from jaxsde.engine.noise._laws import Normal as Normal
from jaxsde.engine.noise._laws import Rademacher as Rademacher
from jaxsde.engine.noise._laws import StudentT as StudentT
from jaxsde.engine.noise._laws import Uniform as Uniform

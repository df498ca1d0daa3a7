"""Names for containers that nobody named: adjective_surname, of people who found or built something.

Lists of our own; the shape is docker's, and so is the one name that never comes out.
"""

from __future__ import annotations

import random
from collections.abc import Container

_ADJECTIVES = """\
able agile airy amber amused ample apt astute avid balmy blithe bold bonny brave breezy bright
brisk bubbly buoyant calm candid chatty cheery civil clear clever cool cosy crafty crisp curious
dapper daring deft eager earnest easy elated exact fair fancy fearless fleet fluent fond frank
free fresh frosty funny gentle giddy glad golden graceful grand handy happy hardy hasty hearty
honest hopeful humble jaunty jolly jovial keen kind lively logical lucid lucky mellow merry
mighty mild modest musing neat nifty nimble noble novel patient peppy placid plucky polite
prompt proud quaint quick quiet quirky radiant rapid ready relaxed robust rosy rustic sage sharp
shiny silent silver sincere sleepy smart snappy snug sober spry stable steady stoic sturdy
subtle sunny super sure swift tender tidy tireless upbeat valiant vivid warm wary whimsical
willing wise witty wry zany zealous zen
"""
_SURNAMES = """\
abel adams agnesi ampere anning archimedes aryabhata avogadro babbage backus banach bardeen
bartik bell bernoulli bessel blackwell bohr boole borg bose boyle brahmagupta brown carson
cartwright cauchy cerf chandrasekhar chatelet clarke codd conway copernicus cori coulomb cray
curie darwin dijkstra dirac easley edison einstein elion engelbart erdos euclid euler faraday
fermat fermi feynman fourier franklin galileo galois gauss germain goldberg goodall gosling
gould hamilton hawking heisenberg henry herschel hertz heyrovsky hilbert hodgkin hopper hubble
huygens hypatia jackson jemison johnson joliot kalam kapitsa kare keller kepler khayyam khorana
kilby kirch knuth kovalevskaya lalande lamarr lamport leakey leavitt lederberg leibniz lewin
liskov lovelace lumiere mahavira margulis maxwell mayer mcclintock mcnulty meitner mendel
mendeleev merkle mirzakhani moore morse moser napier nash newton nightingale nobel noether noyce
panini pascal pasteur payne perlman pike planck poincare ptolemy raman ramanujan ride ritchie
roentgen rosalind rubin saha sammet shannon shaw snyder sinoussi stonebraker sutherland swartz
tesla tharp thompson torvalds turing varahamihira vaughan villani visvesvaraya volhard wescoff
wilbur wiles williams wilson wing wozniak wright wu yalow yonath zhukovsky
"""
ADJECTIVES = tuple(_ADJECTIVES.split())
SURNAMES = tuple(_SURNAMES.split())


def pick(taken: Container[str], choose: random.Random) -> str:
    """A name that is not taken; after a few clashes a digit is appended."""
    for attempt in range(1000):
        name = f"{choose.choice(ADJECTIVES)}_{choose.choice(SURNAMES)}"
        if name == "boring_wozniak":  # Steve Wozniak is not boring
            continue
        if attempt > 5:
            name += str(choose.randrange(10 ** (1 + attempt // 100)))
        if name not in taken:
            return name
    raise RuntimeError("a thousand names were all taken")

"""`python -m environments NAME`: make the environment NAME, print its interpreter; 1 with the
reason if that fails.
"""

import sys

from environments import SetupError, make

try:
    print(make(sys.argv[1]))
except SetupError as error:
    sys.exit(str(error))

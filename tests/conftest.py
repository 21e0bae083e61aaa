"""For every test: how hypothesis looks for counter-examples."""

import os

from hypothesis import settings

# No example has a deadline: a busy machine is nobody's bug. In CI the same examples come each time, so that a run can be repeated and what
# fails there fails for a reason in the change; everywhere else each run looks at new ones.
settings.register_profile("ironpost", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("ironpost")

"""``python -m trainyard.tasks.training.hosts JOB``: see ``controller``."""

import sys

from trainyard.tasks.training.hosts.controller import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

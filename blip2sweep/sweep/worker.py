"""The worker of a pack, under the name that supervisors of version 0.1 call. It goes on 2027-06-01."""

import sys

from blip2sweep.workers.worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

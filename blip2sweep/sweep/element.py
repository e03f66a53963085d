"""The batch process of a Slurm job, under the name that scripts of version 0.1 call. It goes on 2027-06-01."""

import sys

from blip2sweep.slurm.batch_job import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

// All is done at the end of the job.

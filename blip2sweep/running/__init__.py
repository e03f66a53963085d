"""A sweep in progress: started here, followed, its state read from the ledger and the queue."""

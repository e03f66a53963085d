"""A running sweep: started on this machine, followed, its state read from the ledger and the queue."""

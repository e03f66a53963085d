"""What the back ends share that run a model as graphs (models/graphs): torch makes it, they write and compile it."""

"""The miniatures of data sets: a module each, named as in conf/task/, with `write(folder)`.

`write` gets an empty folder and fills it as the task's `data_dir`: the official file names and layout, a few dozen samples.
Modules whose names begin with `_` are shared. `_pictures.py` draws the scenes, `_karpathy.py` writes the Karpathy files.
"""

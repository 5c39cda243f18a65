"""Which Runway sessions may bill, written down, so that a killed process costs seconds and no cap.

Whoever makes sessions writes their ids to a file of its own, and holds a lock on it for as long as
it lives (`writer.py`). What stands in a file whose lock is free was left behind: the next start on
the machine ends it (`sweep.py`), and a helper process does so at once (`guardian.py`). `keeper.py`
holds the three together. `records.py` is the file itself.
"""

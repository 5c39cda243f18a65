"""A journal of the Runway sessions that may bill. With it, the sessions of a killed process are
ended within seconds, and do not bill until their cap.

Each client writes the ids of its sessions to a file of its own, and holds a lock on it while its
process lives (`writer.py`). Entries in a file whose lock is free were left behind: the next start
on the machine ends those sessions (`sweep.py`), and a helper process does so at once
(`guardian.py`). `keeper.py` combines the three. `records.py` is the file format.
"""

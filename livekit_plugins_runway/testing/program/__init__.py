"""The simulator as a program: its command line, and the control API by which it is told what to do.

For tests in other languages, and for trying things by hand. A test in Python has `RunwaySimulator`.
"""

"""`transport="auto"`: begins with one transport, and changes to the other if the first gives no
avatar.
"""

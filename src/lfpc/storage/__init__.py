"""What outlives a killed process.

files         a file or folder is written whole, or not at all
journal       append-only lines, of which a torn one does not count
runs          a folder with one configuration and what came of it
locks         one process at a time writes in a folder
environment   versions, revision and machine of a run
typed         dataclasses to JSON and back
"""

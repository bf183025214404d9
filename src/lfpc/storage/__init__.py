"""Files that survive a killed process.

files         atomic writes of files and folders
journal       append-only lines of JSON
runs          run folders: one configuration and its results
locks         one writing process per folder
environment   versions, revision and machine of a run
typed         dataclasses to JSON and back
"""
